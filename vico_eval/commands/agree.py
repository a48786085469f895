"""`vico-eval agree`: two runs of the same documents side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import options


def agree(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_A",
            help="Folder of a run (lmms-eval's --output_path, VLMEvalKit's --work-dir), or a folder of several runs, "
            "each compared with the run of the same name in RUN_B.",
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run, or folder of runs, to compare with.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write agreement.csv, agreement.md and agreement.json to this folder.")
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, help="Number of differing answers to show for each pair of runs.")
    ] = 3,
    require_equal: Annotated[
        bool,
        typer.Option("--require-equal", help="Exit with status 1 unless every document has the same answer in both."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare the answers of two runs of the same documents.

    Prints how many answers are equal and where the others first diverge, both scores with an interval for their
    difference, whether the token accounts are equal, and how the conditions of the runs differ. Use it to compare
    engines, toolkits, devices or versions.

    \b
    Examples:
      vico-eval agree runs/transformers/vico runs/vllm/vico
      vico-eval agree runs/one-gpu runs/eight-gpus --out results/agreement --require-equal
    """
    from vico_eval.commands.work.agree import print_agreement

    print_agreement(first, second, out=out, num_examples=examples, require_equal=require_equal, as_json=as_json)
