"""The page's table of answers that were truncated or end in a repetition loop."""

import math

import pandas as pd

from vico_eval.report.endings.counts import ALL
from vico_eval.report.page.tables.cells import PageCell, PageRow
from vico_eval.report.tables.table import Table
from vico_eval.report.tables.writers import percent


def ending_heads(table: Table) -> list[str]:
    """Titles of the columns after the method's."""
    return [*table.columns, ALL]


def ending_rows(table: Table, endings: pd.DataFrame) -> list[PageRow]:
    """One line per row with the share of truncated answers, and below it the share of looping answers.

    Args:
        table: the report's table.
        endings: result of `vico_eval.report.endings.counts.endings`.

    Returns:
        Empty if no run records why its answers ended and no answer loops.
    """
    if endings["truncated"].isna().all() and not endings["looping"].any():
        return []
    lines = endings.set_index(["row", "benchmark"])
    return [
        PageRow(
            title=title,
            cells=tuple(_cell(lines, title, column) for column in ending_heads(table)),
            is_baseline=title == table.baseline,
        )
        for title in map(str, table.summary.index)
    ]


def _cell(lines: pd.DataFrame, row: str, benchmark: str) -> PageCell:
    if (row, benchmark) not in lines.index:
        return PageCell(text=percent(math.nan, digits=1), sort=None)
    line = lines.loc[(row, benchmark)]
    looping = f"loops {percent(line['looping_percent'], digits=1)}" if line["looping"] else ""
    return PageCell(text=percent(line["truncated_percent"], digits=1), sort=None, below=looping)
