"""The page's score table: the report's numbers with their formatted text.

A row's summary comes first, so that its verdict is visible however many benchmarks follow.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from vico_eval.report.costs.frame import ASKED, cost_columns
from vico_eval.report.page.scripts import known
from vico_eval.report.page.tables.cells import NONE, PageCell, PageColumn, PageRow
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.grid import DASH
from vico_eval.report.tables.table import CostColumn, Table
from vico_eval.report.tables.writers import INTERVAL, published_line, text_grid

VERDICT, DIFFERENCE, TOKENS = "Verdict", "Difference", "Visual tokens"

_LOYALTY = ("Same answers", "Lost", "Gained")


def with_known_costs(table: Table, costs: pd.DataFrame | None) -> Table:
    """The table with all known costs: requested ones first, then the others.

    Args:
        table: the report's table.
        costs: result of `vico_eval.report.costs.frame.document_costs`.
    """
    asked = {column.title for column in table.costs}
    others = [column for column in cost_columns(costs, list(ASKED)) if column.title not in asked]
    return replace(table, costs=(*table.costs, *filter(_is_known, others)))


def page_columns(table: Table, shown_costs: Sequence[CostColumn]) -> list[PageColumn]:
    """The columns after the method's.

    Args:
        table: result of `with_known_costs`.
        shown_costs: the requested costs.
    """
    asked = {column.title for column in shown_costs}
    return [
        PageColumn(title=AVERAGE, group="Summary"),
        PageColumn(title=INTERVAL, group="Summary"),
        PageColumn(title=VERDICT, group="Summary", is_words=True),
        PageColumn(title=DIFFERENCE, group="Summary"),
        PageColumn(title=TOKENS, group="Costs"),
        *(PageColumn(title=cost.title, group="Costs", is_shown=cost.title in asked) for cost in table.costs),
        *(PageColumn(title=title, group="Benchmarks") for title in table.columns),
        *(PageColumn(title=title, group=f"Agreement with {table.baseline}", is_shown=False) for title in _LOYALTY),
    ]


def page_rows(table: Table, uncertainty: pd.DataFrame, loyalty: pd.DataFrame) -> list[PageRow]:
    """The table's rows: scores with ratios below them, the retention's interval and verdict, and the agreement.

    Args:
        table: result of `with_known_costs`.
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        loyalty: result of `vico_eval.report.stats.loyalty.loyalty`.
    """
    lines = list(zip(table.rows, text_grid(replace(table, published=()), has_margins=True).lines, strict=True))
    ratios = {row.title: line for row, line in lines if row.kind == "ratio"}
    intervals, agreements = (frame[frame["benchmark"] == AVERAGE].set_index("row") for frame in (uncertainty, loyalty))
    rows = []
    for row, line in lines:
        if row.kind == "ratio":
            continue
        below = [cell.text for cell in ratios[row.title].cells] if row.title in ratios else [""] * len(line.cells)
        summary = table.summary.loc[row.title]
        values = [*(row.values[column] for column in (*table.columns, AVERAGE)), summary["difference"]]
        values += [summary["token_share"], *(cost.values.get(row.title, math.nan) for cost in table.costs)]
        cells = [
            PageCell(text=cell.text, sort=known(value), below=ratio, is_bold=cell.is_bold)
            for cell, value, ratio in zip(line.cells, values, below, strict=True)
        ]
        is_baseline = row.title == table.baseline
        beside = [NONE] * 2 if is_baseline else _interval(intervals.loc[row.title])
        loyal = [NONE] * len(_LOYALTY) if is_baseline else _agreement(agreements.loc[row.title])
        rows.append(PageRow(title=row.title, cells=_ordered(table, cells, beside, loyal), is_baseline=is_baseline))
    return rows


def paper_rows(table: Table) -> list[PageRow]:
    """A paper's rows, if requested: scores with ratios below them, and the difference from ours."""
    ratios = {row.title: published_line(table, row, has_margins=True) for row in table.published if row.kind == "ratio"}
    rows = []
    for row in table.published:
        if row.kind == "ratio":
            continue
        line = published_line(table, row, has_margins=True)
        below = [cell.text for cell in ratios[row.title].cells] if row.title in ratios else [""] * len(line.cells)
        cells = [
            PageCell(text=cell.text, sort=None, below=ratio) for cell, ratio in zip(line.cells, below, strict=True)
        ]
        ordered = _ordered(table, cells, [NONE] * 2, [NONE] * len(_LOYALTY))
        rows.append(PageRow(title=line.titles[0].text, cells=ordered, is_baseline=False))
    return rows


def _is_known(column: CostColumn) -> bool:
    return any(math.isfinite(value) for value in column.values.values())


def _ordered(
    table: Table, cells: Sequence[PageCell], beside: Sequence[PageCell], loyal: Sequence[PageCell]
) -> tuple[PageCell, ...]:
    """A line's cells in the order of `page_columns`; `cells` are in the order of the printed table."""
    count = len(table.columns)
    scores, (average, difference, *costs) = cells[:count], cells[count:]
    return (average, *beside, difference, *costs, *scores, *loyal)


_UNKNOWN = PageCell(text=DASH, sort=None)


def _interval(line: pd.Series) -> list[PageCell]:
    if math.isnan(line["retention"]):
        return [_UNKNOWN, _UNKNOWN]
    high = f"to {line['high']:.1f}%" if math.isfinite(line["high"]) else "or more"
    below = f"without {line['left_out']}" if line["left_out"] else ""
    return [
        PageCell(text=f"{line['low']:.1f} {high}", sort=known(line["low"]), below=below),
        PageCell(text=line["verdict"], sort=line["verdict"]),
    ]


def _agreement(line: pd.Series) -> list[PageCell]:
    texts = ("{:.0f}%", "{:,.0f}", "{:,.0f}")
    values = (line["same_answer"], line["lost"], line["gained"])
    return [
        _UNKNOWN if math.isnan(value) else PageCell(text=text.format(value), sort=known(value))
        for text, value in zip(texts, values, strict=True)
    ]
