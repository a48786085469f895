"""Measure start-up times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import startup
from vico_eval.bench.script import Out, finish, run_script

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "startup"


def run(
    rounds: Annotated[int, typer.Option(min=1, help="Number of runs of each.")] = 15,
    name: Annotated[str, typer.Option(help="Name of the record.")] = "cpu",
    out: Out = RESULTS,
) -> None:
    """Measure how long commands take to start, and how much time registering the models adds to lmms-eval.

    Writes a record and a table to results/measured/startup. Takes a minute.

    \b
    Examples:
      python benchmarks/startup.py
      python benchmarks/startup.py --rounds 3
    """
    record = startup.measure(rounds)
    finish(record, out, name, startup.readme, startup.summary(record))


if __name__ == "__main__":
    run_script(run)
