"""Write a measured table as LaTeX (booktabs), as Markdown, and for the terminal.

Numbers are rounded only here and in sentences. The best values of a column are bold (`vico_eval.report.paired.best`),
ratio rows and a paper's rows are italic, unknown values are dashes, and a cell with failed documents is `failed`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from rich.console import Group

from vico_eval.errors import ReportError
from vico_eval.report.budgets.groups import FULL
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.grid import (
    DASH,
    OTHERWISE,
    Column,
    Grid,
    GridCell,
    Line,
    escape_markdown,
    grid_to_markdown,
    grid_to_terminal,
    markdown_line,
    with_columns,
)
from vico_eval.report.tables.latex_table import grid_to_latex
from vico_eval.report.tables.table import AVERAGE_DIGITS, CostColumn, PublishedRow, Row, Table
from vico_eval.terminal import Words, lines_of

FAILED = "failed"
RATIO_TITLE = "compressed tiles"
PAPER = "(paper)"
"""Marks a line of published numbers."""

INTERVAL = "95% interval"
"""Title of the column with the retention's intervals."""

SIGNIFICANT = "*"

_OF_PAPER = "; in a paper's line, the measured mean score minus the paper's"


def to_latex(table: Table, label: str, columns: Sequence[str] = ()) -> str:
    """The table as a LaTeX float, for a document that loads booktabs.

    Args:
        table: the table.
        label: label of the float.
        columns: titles of the columns to print, in this order; by default all but the interval.

    Raises:
        ReportError: the table has no such column.
    """
    grid = text_grid(table, has_margins=True, is_for_paper=True)
    known = {column.title: place for place, column in enumerate(grid.columns)}
    wanted = columns or [title for title in known if title != INTERVAL]
    if unknown := [title for title in wanted if title not in known]:
        raise ReportError(f"The table has no column {', '.join(unknown)}; it has {', '.join(known)}.")
    return grid_to_latex(with_columns(grid, [known[title] for title in wanted]), label)


def to_markdown(table: Table) -> str:
    """The table in Markdown, with differences from the baseline, notes and comparisons."""
    text = grid_to_markdown(text_grid(table, has_margins=True))
    for heading, sentences in _comparisons(table):
        lines = "".join(f"- {markdown_line(sentence)}\n" for sentence in sentences)
        text += f"\n**{escape_markdown(heading)}**\n\n{lines}"
    return text


def to_terminal(table: Table, width: int | None = None) -> Group:
    """The table for a rich console; names are printed literally, not as markup.

    Args:
        table: the table.
        width: the console's width in columns; a wider table is split into blocks. None prints a single block.
    """
    text = grid_to_terminal(text_grid(table, has_margins=True), width)
    below = [(Words(f"\n{heading}", "bold"), *lines_of(sentences)) for heading, sentences in _comparisons(table)]
    return Group(text, *chain.from_iterable(below))


def percent(value: float, digits: int) -> str:
    """A percentage formatted for a table; a dash if unknown."""
    return DASH if math.isnan(value) else f"{value:.{digits}f}%"


def text_grid(table: Table, *, has_margins: bool, is_for_paper: bool = False) -> Grid:
    """Format the table's text.

    Args:
        table: the table.
        has_margins: include the columns of differences and visual tokens.
        is_for_paper: include significance marks and the retention's interval, which other formats have in sentences.
    """
    has_margins = has_margins and not table.summary.empty
    has_interval = is_for_paper and has_margins
    titles = [*table.columns, AVERAGE, *([INTERVAL] if has_interval else [])]
    titles += ["Difference", "Visual tokens"] if has_margins else []
    titles += [column.title for column in table.costs]
    lines = []
    for place, row in enumerate(table.rows):
        cells = [_cell(table, row, column) for column in (*table.columns, AVERAGE)]
        if is_for_paper:
            cells = [
                _marked(table, row, cell, column) for cell, column in zip(cells, (*table.columns, AVERAGE), strict=True)
            ]
        if has_interval:
            cells.append(GridCell(text=_interval(table, row)))
        if has_margins:
            cells += [GridCell(text=text) for text in _margins(table, row)]
        cells += [GridCell(text=_cost(column, row)) for column in table.costs]
        own = [
            Line(
                titles=(
                    GridCell(text=RATIO_TITLE if row.kind == "ratio" else table.methods.get(row.title, row.title)),
                ),
                cells=tuple(cells),
                is_italic=row.kind == "ratio",
                heading=_heading(table, place),
            )
        ]
        is_last = row is table.rows[-1] or table.rows[place + 1].title != row.title
        if is_last:
            own += [
                published_line(table, one, has_margins, has_interval)
                for one in table.published
                if one.title == row.title
            ]
        is_end_of_baseline = is_last and row.title == table.baseline and len(table.rows) > 1
        lines += [*own[:-1], replace(own[-1], rule_after=is_end_of_baseline)]
    return Grid(
        caption=table.caption,
        heads=("Method",),
        columns=tuple(Column(title=title) for title in titles),
        lines=tuple(lines),
        notes=tuple(_footnotes(table, has_margins=has_margins, has_marks=is_for_paper and bool(table.significant))),
    )


def _heading(table: Table, place: int) -> str:
    """Heading above a row, if the table is grouped by budget and the row starts a group."""
    if not table.methods:
        return ""
    budgets = [table.budgets[row.title] for row in table.rows[max(0, place - 1) : place + 1]]
    if len(set(map(str, budgets))) < len(budgets):
        return ""
    if math.isnan(budgets[-1]):
        return "Visual tokens unknown"
    return "All visual tokens" if budgets[-1] == FULL else f"Retain {budgets[-1]:.3g}%"


def _comparisons(table: Table) -> list[tuple[str, tuple[str, ...]]]:
    """Headings and sentences below the table."""
    found = [(f"Compared with {table.baseline}", table.comparison), ("Comparisons between rows", table.pairs)]
    return [(heading, sentences) for heading, sentences in found if sentences]


def _cell(table: Table, row: Row, column: str) -> GridCell:
    value = row.values[column]
    if row.kind == "ratio":
        return GridCell(text=percent(value, digits=1 if column == AVERAGE else 0))
    if math.isnan(value):
        return GridCell(text=FAILED if column in row.failed else DASH)
    number = _number(table, column, value)
    text = f"{number}%" if column == AVERAGE else number
    return GridCell(text=text, is_bold=row.title in table.best.get(column, ()))


def _marked(table: Table, row: Row, cell: GridCell, column: str) -> GridCell:
    is_marked = row.kind == "score" and column in table.significant.get(row.title, ())
    return replace(cell, text=f"{cell.text}{SIGNIFICANT}") if is_marked else cell


def _interval(table: Table, row: Row) -> str:
    """The retention's interval; blank for a ratio row and for the baseline."""
    if row.kind == "ratio" or row.title == table.baseline:
        return ""
    low, high = table.intervals.get(row.title, (math.nan, math.nan))
    if math.isnan(low):
        return DASH
    return f"{low:.1f}–{high:.1f}%" if math.isfinite(high) else f"≥ {low:.1f}%"


def published_line(table: Table, row: PublishedRow, has_margins: bool, has_interval: bool = False) -> Line:
    """A line with a paper's numbers, never bold. Its margins are the difference and a blank for visual tokens."""
    columns = (*table.columns, AVERAGE)
    if row.kind == "ratio":
        texts = [percent(row.values[column], digits=1 if column == AVERAGE else 0) for column in columns]
    else:
        texts = [
            DASH if math.isnan(row.values[column]) else _number(table, column, row.values[column])
            for column in table.columns
        ]
        mark = "" if math.isnan(row.recomputed) else OTHERWISE
        texts.append(f"{percent(row.values[AVERAGE], AVERAGE_DIGITS)}{mark}")
    texts += [""] if has_interval else []
    if has_margins:
        texts += [_signed(row.difference) if row.kind == "score" else "", ""]
    texts += [""] * len(table.costs)
    title = RATIO_TITLE if row.kind == "ratio" else row.title
    return Line(
        titles=(GridCell(text=f"{title} {PAPER}"),), cells=tuple(GridCell(text=text) for text in texts), is_italic=True
    )


def _margins(table: Table, row: Row) -> tuple[str, str]:
    """Difference from the baseline and share of visual tokens; blank for a ratio row, whose score row has them."""
    if row.kind == "ratio":
        return "", ""
    summary = table.summary.loc[row.title]
    margin = "" if row.title == table.baseline else _margin(summary["difference"], summary["difference_se"])
    return margin, percent(summary["token_share"], digits=1)


def _cost(column: CostColumn, row: Row) -> str:
    """Cost per document, to three digits; blank for a ratio row, whose score row has it."""
    if row.kind == "ratio":
        return ""
    value = column.values.get(row.title, math.nan)
    return DASH if math.isnan(value) else f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def _footnotes(table: Table, *, has_margins: bool, has_marks: bool) -> list[str]:
    text = f"{AVERAGE} is the mean score relative to that of {table.baseline}."
    if has_margins:
        documents = table.summary["documents"].max()
        text += (
            " Difference is between the mean scores, in points, ± its standard error from paired documents, clustered "
            f"as for the intervals ({documents:.0f} documents per row){_OF_PAPER if table.published else ''}. "
            f"Visual tokens are those that a decoder layer processes, relative to {table.baseline}."
        )
    if has_marks:
        text += (
            f" {SIGNIFICANT} marks significant differences from {table.baseline}, by a paired test corrected for all "
            "rows and benchmarks (Holm)."
        )
    for column in table.costs:
        text += f" {column.title}: {column.meaning}."
    if table.methods:
        text += " Retain is the visual-token budget; a row without a budget is placed with the closest one."
    if any(table.best.values()):
        text += " Bold marks the best row within a budget, and all rows not significantly different from it."
    return [text, *table.notes, *(_spread(table, title) for title in table.score_spread)]


def _spread(table: Table, title: str) -> str:
    """A footnote with the spread over a row's runs."""
    of_scores = ", ".join(
        f"{column} {DASH if math.isnan(spread) else _number(table, column, spread)}"
        for column, spread in table.score_spread[title].items()
    )
    of_retention = table.summary.loc[title, "retention_spread"]
    also = "" if math.isnan(of_retention) else f"; retention {of_retention:.1f}"
    return f"{title}, sample standard deviation over its runs, in points: {of_scores}{also}."


def _number(table: Table, column: str, value: float) -> str:
    return f"{value:.{table.digits.get(column, 1)}f}"


def _margin(difference: float, error: float) -> str:
    if math.isnan(difference):
        return DASH
    return f"{_signed(difference)} ± {DASH if math.isnan(error) else f'{error:.1f}'}"


def _signed(difference: float) -> str:
    return DASH if math.isnan(difference) else f"{difference:+.1f}".replace("-", "−")
