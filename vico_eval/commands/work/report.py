"""`vico-eval report`: a table of finished runs on stdout, with files and figures in a folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from vico_eval.commands.output import message_console, print_json, results_console
from vico_eval.errors import ConfigError
from vico_eval.report import Report, to_terminal
from vico_eval.report.tables.table import Table


def print_report(written: Report) -> None:
    """Print a written report's table and the paths of its files."""
    results = results_console()
    results.print(to_terminal(written.table, width=results.width))
    messages = message_console()
    messages.print("Written:")
    for path in written.paths:
        messages.print(f"  {path}", soft_wrap=True)
    if written.removed:
        messages.print("Removed files of an earlier report that this one does not have:")
        for path in written.removed:
            messages.print(f"  {path}", soft_wrap=True)


def print_summary(written: Report) -> None:
    """Print a written report's numbers and paths as JSON."""
    table = written.table
    print_json(
        {
            "caption": table.caption,
            "baseline": table.baseline,
            "rows": [_row(str(title), table) for title in table.summary.index],
            "verdicts": list(table.comparison),
            "pairs": list(table.pairs),
            "notes": list(table.notes),
            "files": [str(path) for path in written.paths],
        }
    )


def table_frame(table: Table) -> pd.DataFrame:
    """Return a table's scores, followed by its summary (`Table.summary`) and the interval of each retention.

    Returns:
        One line per row title, with a column for each benchmark, `Avg.`, and those of the summary with retention_low
        and retention_high; NaN for unknown values.
    """
    scores = {row.title: row.values for row in table.rows if row.kind == "score"}
    ends = {title: table.intervals.get(title, (math.nan, math.nan)) for title in scores}
    intervals = pd.DataFrame.from_dict(ends, orient="index", columns=["retention_low", "retention_high"])
    return pd.DataFrame.from_dict(scores, orient="index").join([table.summary, intervals]).rename_axis("row")


def _row(title: str, table: Table) -> dict[str, Any]:
    """Return a row's scores by column, and its line of the summary; null for unknown or non-finite values."""
    numbers = {
        str(name): float(value) if math.isfinite(value) else None
        for name, value in table_frame(table).loc[title].items()
    }
    (row,) = [row for row in table.rows if row.title == title and row.kind == "score"]
    scores = {column: numbers.pop(column) for column in row.values}
    return {"title": title, "scores": scores, "failed": sorted(row.failed), **numbers}


def titled_run(text: str) -> tuple[str | None, Path]:
    """Parse a run on the command line, `FOLDER` or `TITLE=FOLDER`, into title and folder.

    An existing path is a folder, whatever its name. A title may contain equals signs, but the folder after it may not.

    Raises:
        ConfigError: it is the word `published`, which is an option here, and not a folder.
    """
    if text == "published" and not Path(text).exists():
        raise ConfigError(
            "published is not a run. `vico-eval papers` prints the papers' own tables, and `vico-eval report RUNS "
            "--published` prints their numbers beneath measured ones."
        )
    title, equals, folder = text.rpartition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return title or None, Path(folder)
