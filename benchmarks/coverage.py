"""Measure the coverage of a report's 95% intervals and the error rates of its verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import coverage
from vico_eval.bench.script import Out, finish, run_script

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "coverage"


def run(
    evaluations: Annotated[int, typer.Option(min=1, help="Evaluations per setting and true retention.")] = 4000,
    name: Annotated[str, typer.Option(help="Name of the record.")] = "retention",
    out: Out = RESULTS,
) -> None:
    """Measure how often a report's 95% intervals contain the true retention, and how often its verdicts are wrong.

    Simulates evaluations of ten kinds, compares their rows with the report's own code, and writes a record and a table
    to results/measured/coverage. Takes ten minutes on one core and 1 GB of memory.

    \b
    Examples:
      python benchmarks/coverage.py
      python benchmarks/coverage.py --evaluations 100 --out coverage
    """
    record = coverage.measure(evaluations)
    finish(record, out, name, coverage.readme, coverage.summary(record))


if __name__ == "__main__":
    run_script(run)
