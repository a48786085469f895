"""`vico-eval report`: finished runs -> the table on stdout, its files and its figures in a folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vico_eval.commands.output import message_console, print_json, results_console
from vico_eval.errors import ConfigError
from vico_eval.report import Report, to_terminal


def print_report(written: Report) -> None:
    """Print a written report's table, and say where its files are."""
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
    """Print a written report's numbers as JSON, and where its files are."""
    table = written.table
    print_json(
        {
            "caption": table.caption,
            "baseline": table.baseline,
            "rows": [_row(title, written) for title in table.summary.index],
            "verdicts": list(table.comparison),
            "pairs": list(table.pairs),
            "notes": list(table.notes),
            "files": [str(path) for path in written.paths],
        }
    )


def _row(title: str, written: Report) -> dict[str, Any]:
    """A row's scores by column, and its line of the summary; null for what is not known."""
    table = written.table
    scores = next(row for row in table.rows if row.title == title and row.kind == "score")
    low, high = table.intervals.get(title, (math.nan, math.nan))
    summary = {str(name): _number(value) for name, value in table.summary.loc[title].items()}
    return {
        "title": title,
        "scores": {column: _number(value) for column, value in scores.values.items()},
        "failed": sorted(scores.failed),
        **summary,
        "retention_low": _number(low),
        "retention_high": _number(high),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def titled_run(text: str) -> tuple[str | None, Path]:
    """A run as the command line names it, `FOLDER` or `TITLE=FOLDER`: title and folder.

    What is there is a folder, whatever its name; a title may hold equals signs, the folder behind it none.

    Raises:
        ConfigError: it is the word `published`, which is an option here, and no folder.
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
