"""How long a report takes from samples files to its tables, and how much memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import report
from vico_eval.bench.script import Out, finish, run_script

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "report-speed"


def run(
    rows: Annotated[int, typer.Option(min=2, help="Of the table, a run each.")] = 20,
    documents: Annotated[int, typer.Option(min=14, help="Of each of the 17 benchmarks.")] = 1000,
    cores: Annotated[int, typer.Option(min=1, help="On which the report may run.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Times that the report is made.")] = 3,
    name: Annotated[str | None, typer.Option(help="Of the record. Default: rows and documents.")] = None,
    out: Out = RESULTS,
) -> None:
    """Measure how long a report takes from samples files to its tables, and how much memory.

    Writes runs of invented answers to a temporary folder (600 MB for 20 rows x 1,000 documents), makes their report
    again and again, and writes a record and a table to results/measured/report-speed. Takes three minutes. Linux only.

    \b
    Examples:
      python benchmarks/report.py
      python benchmarks/report.py --rows 3 --documents 100 --rounds 1
    """
    record = report.measure(rows, documents, cores, rounds)
    finish(record, out, name or f"{rows}x{documents}", report.readme, report.summary(record))


if __name__ == "__main__":
    run_script(run)
