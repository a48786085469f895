"""The options of `vico-eval agree`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def agree(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_A",
            help="A run's folder: what lmms-eval got as --output_path or VLMEvalKit as --work-dir. Or a folder of "
            "runs: each is compared with the run of the same name in RUN_B.",
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another one, of the same documents.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write agreement.csv, agreement.md and agreement.json into this folder.")
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, help="Documents with other answers to show of each pair of runs.")
    ] = 3,
    require_equal: Annotated[
        bool,
        typer.Option("--require-equal", help="Exit with status 1 unless every document has the same answer in both."),
    ] = False,
) -> None:
    """Compare two runs of the same documents.

    How many answers are equal and where others part, both scores with their difference and its interval, whether token
    accounts are equal, and what the runs' records differ in. It tells engines, toolkits, devices or versions apart.

    \b
    Examples:
      vico-eval agree runs/transformers/vico runs/vllm/vico
      vico-eval agree runs/one-gpu runs/eight-gpus --out results/agreement --require-equal
    """
    from vico_eval.commands.agree import print_agreement

    print_agreement(first, second, out=out, num_examples=examples, require_equal=require_equal)
