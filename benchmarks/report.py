"""Measure time and memory of a report, from samples files to its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import report
from vico_eval.bench.script import Out, finish, run_script

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "report-speed"


def run(
    rows: Annotated[int, typer.Option(min=2, help="Rows of the table, each from one run.")] = 20,
    documents: Annotated[int, typer.Option(min=14, help="Documents per benchmark, of which there are 17.")] = 1000,
    cores: Annotated[int, typer.Option(min=1, help="Number of CPU cores for the report.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Number of reports to make.")] = 3,
    name: Annotated[str | None, typer.Option(help="Name of the record. Default: rows and documents.")] = None,
    out: Out = RESULTS,
) -> None:
    """Measure time and memory of a report, from samples files to its tables.

    Writes synthetic runs to a temporary folder (600 MB for 20 rows x 1,000 documents), makes their report several
    times, and writes a record and a table to results/measured/report-speed. Takes three minutes. Linux only.

    \b
    Examples:
      python benchmarks/report.py
      python benchmarks/report.py --rows 3 --documents 100 --rounds 1
    """
    record = report.measure(rows, documents, cores, rounds)
    finish(record, out, name or f"{rows}x{documents}", report.readme, report.summary(record))


if __name__ == "__main__":
    run_script(run)
