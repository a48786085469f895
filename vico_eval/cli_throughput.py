"""`vico-eval throughput`: how fast a server and the engine itself are, next to what arithmetic allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval import cli_options

throughput_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure speed, and fill Table 4.")

DEFAULT_METHODS = "vanilla,vico,fastv"


@throughput_app.command("serve")
def serve(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="Of an OpenAI-compatible server, as http://localhost:23333.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=URL", help="Servers in place of URL, in turns; the others against the first."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Of the served checkpoint: its folder, hub id or built-in name. Needed without --images."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Send this folder's images instead of text: the end-to-end numbers.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="To ask for, of all servers or of one of --compare's. Default: the only one that a server lists.",
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the key that all servers want (Bearer)."),
    ] = None,
    requests: Annotated[
        int, typer.Option(min=1, max=cli_options.MAX_REQUESTS, help="Of each number in the table, over all rounds.")
    ] = 2000,
    concurrency: Annotated[int, typer.Option(min=1, max=cli_options.MAX_CONCURRENCY, help="Requests in flight.")] = 32,
    rounds: Annotated[int, cli_options.rounds("Turns of each server and prompt; intervals come from them.")] = 5,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=1, max=cli_options.MAX_TOKENS, help="Of an answer. More than one also gives the time between tokens."
        ),
    ] = 1,
    warmup: Annotated[
        int,
        typer.Option(
            min=0, max=cli_options.MAX_REQUESTS, help="Requests before, for each server and prompt; not counted."
        ),
    ] = 16,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=cli_options.MAX_SECONDS, help="Seconds that an answer may take.")
    ] = 120,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, max=cli_options.MAX_SECONDS, help="End the load after so many. Default: no limit."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the prompts. Default: another one each time.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for requests, summary and table. Default: one under runs/.")
    ] = None,
) -> None:
    """Load a server with streaming requests, and measure first tokens.

    Text prompts are exactly as long as those of ViCO's Table 4: 10 tiles' tokens, less 0, 25, 50 and 75%, with 64 and
    512 tokens of text. No two share a beginning, and the server's count of each is checked. With --images the vision
    encoder is in the numbers. All takes turns, so that a slow minute slows all of it. What fails is counted by kind.
    Ctrl-C ends the load with what there is.

    \b
    Examples:
      vico-eval throughput serve http://localhost:23333 --tokenizer OpenGVLab/InternVL3_5-8B
      vico-eval throughput serve --compare on=http://localhost:23333 --compare off=http://localhost:23334 --images pics
    """
    from vico_eval.commands.throughput_serve import ServeOptions, measure_servers

    options = ServeOptions(
        url=url,
        compare=tuple(compare or ()),
        tokenizer=tokenizer,
        images=images,
        models=tuple(model or ()),
        api_key_env=api_key_env,
        num_requests=requests,
        concurrency=concurrency,
        num_rounds=rounds,
        max_tokens=max_tokens,
        num_warmup=warmup,
        timeout_s=timeout,
        seconds=seconds,
        seed=seed,
        out=out,
    )
    measure_servers(options)


@throughput_app.command("local")
def throughput_local(
    checkpoint: Annotated[
        str | None, typer.Option(help="A folder, a hub id or a built-in one. Default: vico-tiny.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Instead of a checkpoint: random weights of shape small, 0.6b or 8b.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Separated by commas; the first is what others are compared with. Default: " + DEFAULT_METHODS + ".",
        ),
    ] = None,
    method_args: Annotated[
        str, typer.Option(help="Of the methods, as in keep_ratio=0.3,ratio=0.5; each goes to all that know it.")
    ] = "",
    table4: Annotated[bool, typer.Option("--table4", help="Measure ViCO's Table 4 instead of methods.")] = False,
    batch_size: Annotated[int, cli_options.batch_size("Requests answered together; Table 4 has one.")] = 1,
    device: cli_options.Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16. Default: bfloat16, on a CPU float32."),
    ] = None,
    attention: Annotated[str, typer.Option(help="Kernel: sdpa, flash_attention_2, eager, ...")] = "sdpa",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the CPU, at most one a core. Default: PyTorch's own choice.")
    ] = None,
    rounds: Annotated[int, cli_options.rounds("Times that everything is measured.")] = 7,
    minutes: Annotated[
        float,
        typer.Option(min=0, max=cli_options.MAX_MINUTES, help="No further round is begun that would take longer."),
    ] = 10,
    out: Annotated[Path, typer.Option(help="Folder of record and tables.")] = Path("runs/throughput-local"),
    name: Annotated[str | None, typer.Option(help="Of the record. Default: model, device and dtype.")] = None,
) -> None:
    """Measure the engine stage by stage, or Table 4.

    Tiling, vision encoder, router, connectors, method, prefill and decode; rates, first token, GPU memory, operations.
    Speed-ups stand beside what operations allow, for the language model alone and end-to-end. Methods take turns in
    every round. A record, CSV, LaTeX and a README go to --out.

    \b
    Examples:
      vico-eval throughput local --methods vanilla,vico,fastv,vico+fastv --batch-size 4
      vico-eval throughput local --table4 --shape 8b --device cuda --dtype bfloat16
    """
    if table4 and (methods is not None or method_args or batch_size != 1):
        raise typer.BadParameter("takes no --methods, --method-args or --batch-size.", param_hint="--table4")
    if shape is not None and checkpoint is not None:
        raise typer.BadParameter("takes the place of --checkpoint; give one of them.", param_hint="--shape")
    from vico_eval.commands.throughput_local import LocalOptions, run_local

    run_local(
        LocalOptions(
            checkpoint="vico-tiny" if checkpoint is None else checkpoint,
            shape=shape,
            methods=[
                one.strip() for one in (DEFAULT_METHODS if methods is None else methods).split(",") if one.strip()
            ],
            method_args=method_args,
            table4=table4,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            attention=attention,
            threads=threads,
            rounds=rounds,
            minutes=minutes,
            out=out,
            name=name,
        )
    )
