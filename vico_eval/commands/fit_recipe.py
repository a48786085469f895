"""`vico-eval fit-recipe`: FitPrune's recipes for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import options


def fit_recipe(
    samples: Annotated[
        Path,
        typer.Argument(help="JSON Lines in InternVL's format, such as LLaVA-1.5's training data; images come first."),
    ],
    checkpoint: Annotated[str, options.checkpoint()],
    reductions: Annotated[
        str, typer.Option(help="Shares of the operations on visual tokens to save, separated by commas.")
    ] = "0.6",
    root: Annotated[Path, typer.Option(help="Folder that the image paths are relative to.")] = Path(),
    limit: Annotated[int, options.limit("Number of samples, from the first on.")] = 64,
    model_args: Annotated[
        str, typer.Option(help="Further arguments of the engine, as in max_tiles=1,batch_size=8.")
    ] = "",
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("recipes.json"),
) -> None:
    """Search FitPrune's recipes for a model.

    A recipe sets how many visual tokens leave in each layer. There is one per reduction, searched as in the released
    script, and method=fitprune,recipe=FILE.json uses it. The first reduction takes eight prefills of all samples, each
    further one fewer.

    \b
    Examples:
      vico-eval fit-recipe samples.jsonl --checkpoint vico-tiny-base
      vico-eval fit-recipe llava.jsonl --root images --checkpoint OpenGVLab/InternVL3_5-8B --reductions 0.4,0.6
    """
    from vico_eval.commands.work.fit_recipe import fit_recipe as search

    search(
        samples,
        checkpoint=checkpoint,
        reductions=reductions,
        root=root,
        limit=limit,
        model_args=model_args,
        out=out,
    )
