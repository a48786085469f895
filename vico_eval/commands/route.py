"""`vico-eval route`: the router's decisions on an image, as a picture and in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import options


def route(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE", help="Image files. Default: a page of the built-in benchmark."),
    ] = None,
    checkpoint: Annotated[str, options.checkpoint(f"Checkpoint with a router: {options.A_CHECKPOINT}.")] = "vico-tiny",
    method: Annotated[
        str, options.methods("Method with a router (vico, image_vir, vanilla_vir), or a combination that includes one.")
    ] = "vico",
    model_args: options.ModelArgs = "",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("route"),
    as_json: options.Json = False,
) -> None:
    """Draw which tiles of an image the router compresses.

    Each image becomes a picture of its tiles with their scores and with the compressed ones shaded, as in ViCO's
    Figures 3 to 5, and the same numbers are printed. Tiles are cut, scored and decided on as in an evaluation.

    \b
    Examples:
      vico-eval route
      vico-eval route a.jpg b.jpg --checkpoint OpenGVLab/InternVL3_5-8B-Flash --model-args max_tiles=40 --out pictures
    """
    from vico_eval.commands.work.route import draw_routes
    from vico_eval.paths import example_image

    draw_routes(
        images or [example_image()],
        checkpoint=checkpoint,
        method=method,
        model_args=model_args,
        out=out,
        as_json=as_json,
    )
