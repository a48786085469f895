"""The page's table and plot: numbers that the report has, beside their text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from vico_eval.report.figures.style import COLOURS, MARKERS, compared_rows
from vico_eval.report.page.scripts import known
from vico_eval.report.stats.retention import AVERAGE, pareto_front
from vico_eval.report.tables.grid import DASH
from vico_eval.report.tables.table import Table
from vico_eval.report.tables.writers import published_line, text_grid

_BESIDE = ("95% interval", "Verdict")

LOYALTY = ("Same answers", "Lost", "Gained")
"""The last columns, which are shown when they are asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCell:
    """A cell as a reader sees it."""

    text: str
    sort: float | str | None
    """What a column is sorted by; None comes last either way."""

    below: str = ""
    is_bold: bool = False
    is_words: bool = False
    """Whether it is text that may take several lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageRow:
    """A line of the page's table."""

    title: str
    cells: tuple[PageCell, ...]
    is_baseline: bool


@dataclass(frozen=True, slots=True)
class _Point:
    """A row of the plot, in percent of the baseline."""

    row: int
    saved: float
    retention: float


def page_heads(table: Table) -> list[str]:
    """Titles of the columns behind the method's."""
    return [*table.columns, AVERAGE, "Difference", "Visual tokens", *_BESIDE, *LOYALTY]


def page_rows(table: Table, uncertainty: pd.DataFrame, loyalty: pd.DataFrame) -> list[PageRow]:
    """The table's rows: each score with its ratio beneath it, then how sure and how loyal the row is.

    Args:
        table: what the report prints.
        uncertainty: of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        loyalty: of `vico_eval.report.stats.loyalty.loyalty`.
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
        cells = [
            PageCell(text=cell.text, sort=known(value), below=ratio, is_bold=cell.is_bold)
            for cell, value, ratio in zip(line.cells, [*values, summary["token_share"]], below, strict=True)
        ]
        is_baseline = row.title == table.baseline
        beside = [_NONE] * len(_BESIDE) if is_baseline else _interval(intervals.loc[row.title])
        loyal = [_NONE] * len(LOYALTY) if is_baseline else _agreement(agreements.loc[row.title])
        rows.append(PageRow(title=row.title, cells=(*cells, *beside, *loyal), is_baseline=is_baseline))
    return rows


def paper_rows(table: Table) -> list[PageRow]:
    """A paper's rows, where they were asked for: scores with ratios beneath them, and the difference from ours."""
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
        cells += [_NONE] * (len(_BESIDE) + len(LOYALTY))
        rows.append(PageRow(title=line.titles[0].text, cells=tuple(cells), is_baseline=False))
    return rows


def row_styles(table: Table) -> list[dict[str, Any]]:
    """Title, colour (a place among `COLOURS`; None for the baseline), marker and number of runs of each row."""
    others = compared_rows(table)
    styles = []
    for title, runs in table.summary["runs"].items():
        place = None if title == table.baseline else others.index(str(title))
        styles.append(
            {
                "title": str(title),
                "hue": None if place is None else place % len(COLOURS),
                "marker": "o" if place is None else MARKERS[place % len(MARKERS)],
                "runs": int(runs),
            }
        )
    return styles


def plots(table: Table, numbers: pd.DataFrame, uncertainty: pd.DataFrame) -> list[dict[str, Any]]:
    """Retention over visual tokens saved: of the average, then of each benchmark that has both for some row.

    Args:
        table: what the report prints.
        numbers: of `vico_eval.report.tables.numbers.tidy_numbers`.
        uncertainty: of `vico_eval.report.stats.uncertainty.compare_with_baseline`.

    Returns:
        For each its `column`, `points` (row, saved, retention, low and high of the 95% interval, score, ratio of
        compressed tiles; percent, None where unknown) and `front` (rows of the Pareto front, by tokens saved).
    """
    titles = [str(title) for title in table.summary.index]
    shares, ratios = (_by_row_and_column(numbers, name) for name in ("visual_token_share", "compressed_tile_ratio"))
    intervals = uncertainty.set_index(["row", "benchmark"])
    drawn = []
    retentions = {AVERAGE: table.summary["retention"].to_dict()}
    retentions |= {column: table.retention(column) for column in table.columns}
    for column, retention in retentions.items():
        points = [
            _Point(number, 100 - shares.get((title, column), math.nan), float(retention[title]))
            for number, title in enumerate(titles)
        ]
        points = [point for point in points if math.isfinite(point.saved) and math.isfinite(point.retention)]
        if points:
            lines = [_point(point, titles[point.row], column, intervals, table, ratios) for point in points]
            drawn.append({"column": column, "points": lines, "front": [point.row for point in pareto_front(points)]})
    return drawn


_NONE = PageCell(text="", sort=None)
_UNKNOWN = PageCell(text=DASH, sort=None)


def _interval(line: pd.Series) -> list[PageCell]:
    if math.isnan(line["retention"]):
        return [_UNKNOWN, _UNKNOWN]
    high = f"to {line['high']:.1f}%" if math.isfinite(line["high"]) else "or more"
    below = f"without {line['left_out']}" if line["left_out"] else ""
    return [
        PageCell(text=f"{line['low']:.1f} {high}", sort=known(line["low"]), below=below),
        PageCell(text=line["verdict"], sort=line["verdict"], is_words=True),
    ]


def _agreement(line: pd.Series) -> list[PageCell]:
    texts = ("{:.0f}%", "{:,.0f}", "{:,.0f}")
    values = (line["same_answer"], line["lost"], line["gained"])
    return [
        _UNKNOWN if math.isnan(value) else PageCell(text=text.format(value), sort=known(value))
        for text, value in zip(texts, values, strict=True)
    ]


def _point(
    point: _Point,
    title: str,
    column: str,
    intervals: pd.DataFrame,
    table: Table,
    ratios: Mapping[tuple[str, str], float],
) -> dict[str, Any]:
    low = high = None
    if title != table.baseline:
        line = intervals.loc[(title, column)]
        # Where benchmarks are left out, the interval is that of another number.
        if not line["left_out"]:
            low, high = known(line["low"]), known(line["high"])
    return {
        "row": point.row,
        "saved": known(point.saved),
        "retention": known(point.retention),
        "low": low,
        "high": high,
        "ratio": known(ratios.get((title, column), math.nan)),
    }


def _by_row_and_column(numbers: pd.DataFrame, metric: str) -> dict[tuple[str, str], float]:
    own = numbers[numbers["metric"] == metric]
    if "source" in own:
        own = own[own["source"] == "measured"]
    keys: Sequence[tuple[str, str]] = list(zip(own["row"], own["benchmark"], strict=True))
    return dict(zip(keys, own["value"], strict=True))
