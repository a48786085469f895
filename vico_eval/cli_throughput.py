"""`vico-eval throughput`: how fast a server answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

throughput_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure speed, and fill Table 4.")


@throughput_app.callback()
def _throughput() -> None:
    """Measure speed, and fill Table 4."""


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
    model: Annotated[str | None, typer.Option(help="To ask for. Default: the only one that the server lists.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="Of each number in the table, over all rounds.")] = 2000,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server and prompt; intervals come from them.")] = 5,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Of an answer. More than one also gives the time between tokens.")
    ] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before, for each server and prompt; not counted.")] = 16,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an answer may take.")] = 120,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End the load after so many. Default: no limit.")
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
        model=model,
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
