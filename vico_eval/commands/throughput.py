"""`vico-eval throughput`: how fast a server and the engine itself are, next to what arithmetic allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import options

throughput_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure throughput and latency; reproduce ViCO's Table 4."
)

DEFAULT_METHODS = "vanilla,vico,fastv"


@throughput_app.command("serve")
def serve(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Address of an OpenAI-compatible server, as in http://localhost:23333."),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="Servers to compare instead of URL, in turns; the first is the baseline. Repeat for each one.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help=f"Checkpoint whose tokenizer the server uses: {options.A_CHECKPOINT}. Required without --images."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to send instead of text, for end-to-end numbers.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="Model to request, for all servers or for one named by --compare. Default: the one it lists.",
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable that holds the servers' API key (bearer token)."),
    ] = None,
    requests: Annotated[
        int,
        typer.Option(
            min=1, max=options.MAX_REQUESTS, help="Number of requests behind each number of the table, over all rounds."
        ),
    ] = 2000,
    concurrency: Annotated[
        int, typer.Option(min=1, max=options.MAX_CONCURRENCY, help="Number of requests in flight.")
    ] = 32,
    rounds: Annotated[
        int, options.rounds("Number of rounds, each with every server and prompt; intervals come from them.")
    ] = 5,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=1,
            max=options.MAX_TOKENS,
            help="Length of an answer. More than one token also gives the time between tokens.",
        ),
    ] = 1,
    warmup: Annotated[
        int,
        typer.Option(
            min=0,
            max=options.MAX_REQUESTS,
            help="Number of warm-up requests for each server and prompt, excluded from the results.",
        ),
    ] = 16,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=options.MAX_SECONDS, help="Seconds after which a request counts as failed.")
    ] = 120,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, max=options.MAX_SECONDS, help="Seconds after which the load ends. Default: no limit."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the prompts. Default: a new one each time.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the requests, the summary and the table. Default: one under runs/."),
    ] = None,
) -> None:
    """Measure a server's throughput and time to first token.

    Sends streaming requests whose prompts are exactly as long as those of ViCO's Table 4: the visual tokens of 10
    tiles, less 0, 25, 50 and 75%, with 64 and 512 tokens of text. No two prompts share a prefix, and the server's
    token count of each is checked. With --images, the numbers include the vision encoder. Servers and prompts take
    turns, so that a slow minute affects all of them alike. Failed requests are counted by kind and excluded from
    latency and throughput. Ctrl-C ends the load and reports what was measured.

    \b
    Examples:
      vico-eval throughput serve http://localhost:23333 --tokenizer OpenGVLab/InternVL3_5-8B
      vico-eval throughput serve --compare on=http://localhost:23333 --compare off=http://localhost:23334 --images pics
    """
    from vico_eval.commands.work.throughput_serve import ServeOptions, measure_servers

    chosen = ServeOptions(
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
    measure_servers(chosen)


@throughput_app.command("local")
def throughput_local(
    checkpoint: Annotated[
        str | None, options.checkpoint(f"Checkpoint: {options.A_CHECKPOINT}. Default: vico-tiny.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="Measure random weights of this shape instead of a checkpoint: small, 0.6b or 8b."),
    ] = None,
    methods: Annotated[
        str | None,
        options.methods(f"Methods, separated by commas; the first is the baseline. Default: {DEFAULT_METHODS}."),
    ] = None,
    method_args: Annotated[
        str,
        typer.Option(help="Arguments of the methods, as in keep_ratio=0.3,ratio=0.5; each goes to all that take it."),
    ] = "",
    table4: Annotated[bool, typer.Option("--table4", help="Measure ViCO's Table 4 instead of methods.")] = False,
    batch_size: Annotated[int, options.batch_size("Requests per batch; Table 4 always uses 1.")] = 1,
    device: options.Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Precision: float32, bfloat16 or float16. Default: bfloat16; float32 on a CPU."),
    ] = None,
    attention: Annotated[str, typer.Option(help="Attention kernel: sdpa, flash_attention_2, eager, ...")] = "sdpa",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of CPU threads, at most one per core. Default: PyTorch's choice.")
    ] = None,
    rounds: Annotated[int, options.rounds("Number of rounds, each of which measures everything once.")] = 7,
    minutes: Annotated[
        float,
        typer.Option(
            min=0, max=options.MAX_MINUTES, help="Time limit in minutes: no round starts that would exceed it."
        ),
    ] = 10,
    out: Annotated[Path, typer.Option(help="Folder for the record and the tables.")] = Path("runs/throughput-local"),
    name: Annotated[str | None, typer.Option(help="Name of the record. Default: model, device and dtype.")] = None,
) -> None:
    """Measure the engine stage by stage, or reproduce Table 4.

    Times tiling, vision encoder, router, connectors, method, prefill and decode, and reports rates, time to first
    token, GPU memory and operations. Each speed-up stands next to the bound that its operations allow, for the
    language model alone and end-to-end. Methods take turns in every round. --out receives the record, CSV, LaTeX
    and a README.

    \b
    Examples:
      vico-eval throughput local --methods vanilla,vico,fastv,vico+fastv --batch-size 4
      vico-eval throughput local --table4 --shape 8b --device cuda --dtype bfloat16
    """
    if table4 and (methods is not None or method_args or batch_size != 1):
        raise typer.BadParameter(
            "can't be combined with --methods, --method-args or --batch-size.", param_hint="--table4"
        )
    if shape is not None and checkpoint is not None:
        raise typer.BadParameter("replaces --checkpoint; give one of the two.", param_hint="--shape")
    from vico_eval.commands.work.throughput_local import LocalOptions, run_local

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
