"""`vico-eval report`: finished runs -> the table on stdout, its files and its picture in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vico_eval.commands.output import message_console, results_console
from vico_eval.report import to_terminal, write_report


def make_report(
    runs: Sequence[tuple[str | None, Path]],
    *,
    table: str,
    out: Path,
    baseline: str | None = None,
    benchmarks: Sequence[str] | None = None,
    note: str | None = None,
) -> None:
    """Write the report and print the table.

    Args:
        runs: each row's title (None: the run record's) and a run's folder.
        table: a suite, by its own name or its table's.
        out: folder of the files; made where it is missing.
        baseline: title or system of the row that counts as 100%; None for the row of the system `vanilla`.
        benchmarks: titles of the columns to keep; None for all of the table.
        note: printed beneath the table.

    Raises:
        ConfigError: there is no such suite.
        ReportError: a run that does not count, or no baseline among the runs.
        OutputError: `out` can't be written.
    """
    written = write_report(runs, table=table, out=out, baseline=baseline, benchmarks=benchmarks, note=note)
    results = results_console()
    results.print(to_terminal(written.table, width=results.width))
    messages = message_console()
    messages.print("Written:")
    for path in written.paths:
        messages.print(f"  {path}", markup=False, highlight=False, soft_wrap=True)
