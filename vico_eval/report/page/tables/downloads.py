"""The score table for download, with each cell formatted for CSV and LaTeX.

The page only joins the visible rows and columns; escaping is done here by the report's own writers.
"""

from collections.abc import Sequence
from typing import Any

from vico_eval.report.page.tables.cells import PageCell, PageColumn, PageRow
from vico_eval.report.tables.csv_text import Number, as_text, number_or_text
from vico_eval.report.tables.latex_table import SIZE
from vico_eval.report.tables.latex_text import escape_latex
from vico_eval.report.tables.table import Table
from vico_eval.report.tables.writers import RATIO_TITLE

Texts = tuple[str, str]
"""A text in its CSV and its LaTeX form."""


def downloads(
    table: Table, columns: Sequence[PageColumn], rows: Sequence[PageRow], published: Sequence[PageRow], note: str
) -> dict[str, Any]:
    """The parts from which the page assembles CSV and LaTeX files.

    Args:
        table: the report's table.
        columns: columns of the page's table.
        rows: the measured rows.
        published: a paper's rows.
        note: note below the table in LaTeX.

    Returns:
        `columns` (title, group, isShown, isWords, texts), `lines` in the table's order (row: its number, None for a
        paper's; title, cells, below: texts), and the float's `caption`, `size` and `note` in LaTeX.
    """
    lines = [_line(place, row) for place, row in enumerate(rows)]
    return {
        "columns": [
            {
                "title": column.title,
                "group": column.group,
                "isShown": column.is_shown,
                "isWords": column.is_words,
                "texts": _texts(column.title),
            }
            for column in columns
        ],
        "lines": [*lines, *(_line(None, row) for row in published)],
        "method": _texts("Method"),
        "ratio": _texts(RATIO_TITLE),
        "caption": escape_latex(table.caption),
        "size": SIZE,
        "note": escape_latex(note),
    }


def _line(place: int | None, row: PageRow) -> dict[str, Any]:
    return {
        "row": place,
        "title": _texts(row.title),
        "cells": [_cell(cell) for cell in row.cells],
        "below": [_texts(cell.below) for cell in row.cells],
    }


def _cell(cell: PageCell) -> Texts:
    csv, latex = _texts(cell.text)
    return csv, rf"\textbf{{{latex}}}" if cell.is_bold else latex


def _texts(text: str) -> Texts:
    number = number_or_text(text)
    return str(number) if isinstance(number, Number) else as_text(text), escape_latex(text)
