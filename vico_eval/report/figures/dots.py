"""Dot plots with one panel per benchmark: each row's retention with its interval, and its ratio of compressed tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from vico_eval.report.figures.labels import fitting
from vico_eval.report.figures.style import GRID, INK, LINE, RULE, Look, Sheet, looks, named_baseline
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.table import Table

# Inches: between panels, above them, for tick labels, for the axis title at the bottom, and to the right.
_BETWEEN, _ABOVE, _TICKS, _BELOW, _RIGHT = 0.13, 0.19, 0.25, 0.2, 0.12

_HIGHEST = 130.0
"""Upper limit of the axis in percent; a row above it is shown as a number at the edge, so that the others stay
readable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Dot:
    """A row's value on a benchmark with its interval, percent; NaN if unknown."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


_Dots = Mapping[tuple[str, str], _Dot]
"""Dots by row and column."""


def draw_benchmarks(table: Table, uncertainty: pd.DataFrame, sheet: Sheet | None = None) -> Figure | None:
    """Plot each row's score in percent of the baseline's, with 95% intervals, in one panel per benchmark and for
    `Avg.`.

    A dash marks an unknown value, or one relative to a baseline of zero.

    Args:
        table: the table of measured runs.
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        sheet: page format; full page width by default.

    Returns:
        None if there is nothing to draw, or the sheet has no room.
    """
    shown = named_baseline(table.baseline, 12)
    return _draw(table, _retention(table, uncertainty), f"Score, % of {shown}, 95% intervals", sheet or Sheet())


def draw_ratios(table: Table, sheet: Sheet | None = None) -> Figure | None:
    """Plot the ratio of compressed tiles for rows with routing, in the same form as `draw_benchmarks`."""
    # A ratio row follows its score row and has the same title.
    ratios = {
        (row.title, column): _Dot(value=value)
        for row in table.rows
        if row.kind == "ratio"
        for column, value in row.values.items()
    }
    return _draw(table, ratios, "Compressed tiles, %", sheet or Sheet())


def _retention(table: Table, uncertainty: pd.DataFrame) -> _Dots:
    ends = {(str(line.row), str(line.benchmark)): (line.low, line.high) for line in uncertainty.itertuples()}
    values = {
        (title, column): value for column in table.columns for title, value in table.retention(column).items()
    } | {(row.title, AVERAGE): row.values[AVERAGE] for row in table.rows if row.kind == "score"}
    found = {}
    for (title, column), value in values.items():
        if title != table.baseline:
            low, high = ends.get((title, column), (np.nan, np.nan))
            found[title, column] = _Dot(value=value, low=float(low), high=float(high))
    return found


def _draw(table: Table, dots: _Dots, label: str, sheet: Sheet) -> Figure | None:
    if not any(np.isfinite(dot.value) for dot in dots.values()):
        return None
    columns = (*table.columns, AVERAGE)
    titles = [str(title) for title in table.summary.index if any(row == title for row, _ in dots)]
    across = min(2 if sheet.is_narrow else 5, len(columns))
    down = -(-len(columns) // across)
    left = 1.2 if sheet.is_narrow else 1.66
    panel = (sheet.width - left - _RIGHT - (across - 1) * _BETWEEN) / across
    body = LINE * len(titles) + 0.06
    height = down * (_ABOVE + body + _TICKS) + _BELOW
    if not sheet.has_room(height):
        return None
    own = looks(table)
    low, high = _limits(dots)
    with mpl.rc_context(sheet.style):
        figure = Figure(figsize=(sheet.width, height), dpi=300)
        names = [fitting(figure, title, left - 0.12) for title in titles]
        for number, column in enumerate(columns):
            row, place = divmod(number, across)
            top = height - row * (_ABOVE + body + _TICKS) - _ABOVE
            at = (left + place * (panel + _BETWEEN)) / sheet.width
            axes = figure.add_axes((at, (top - body) / height, panel / sheet.width, body / height))
            axes.set(xlim=(low, high), ylim=(len(titles) - 0.5, -0.5))
            axes.set_title(fitting(figure, column, panel), fontsize=8, color=INK, pad=2)
            axes.locator_params(axis="x", nbins=3)
            axes.set_yticks(range(len(titles)), names if place == 0 else [""] * len(titles))
            axes.tick_params(axis="y", length=0, pad=3)
            for text, title in zip(axes.get_yticklabels(), titles, strict=True):
                text.set_color(own[title].colour)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="y", color=GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            if low < 100 < high:
                axes.axvline(100, color=RULE, linewidth=0.7, linestyle=(0, (5, 4)), zorder=1)
            _draw_panel(axes, [dots.get((title, column)) for title in titles], [own[title] for title in titles])
        figure.text((left + sheet.width - _RIGHT) / 2 / sheet.width, 0.05 / height, label, ha="center", color=INK)
    return figure


def _limits(dots: _Dots) -> tuple[float, float]:
    values = [end for dot in dots.values() for end in (dot.value, dot.low, dot.high) if np.isfinite(end)]
    low, high = max(0.0, min(values)), min(_HIGHEST, max(100.0, *values))
    room = 0.06 * max(high - low, 4.0)
    return low - room, high + room


def _draw_panel(axes: Axes, dots: Sequence[_Dot | None], own: Sequence[Look]) -> None:
    left, right = axes.get_xlim()
    lines, colours = [], []
    for level, (dot, look) in enumerate(zip(dots, own, strict=True)):
        if dot is None or np.isnan(dot.value):
            axes.text(left, level, " –", color=look.colour, va="center_baseline")
            continue
        if not np.isnan(dot.low):
            lines.append([(max(dot.low, left), level), (min(dot.high, right), level)])
            colours.append(look.colour)
        is_far = dot.value > _HIGHEST
        if is_far:
            axes.text(right, level, f"{dot.value:.0f}\u2009", color=look.colour, va="center_baseline", ha="right")
            continue
        axes.plot(
            [dot.value],
            [level],
            linestyle="none",
            marker=look.marker,
            color=look.colour,
            markersize=4,
            markerfacecolor="white" if look.is_hollow else look.colour,
            markeredgewidth=0.9 if look.is_hollow else 0.3,
            zorder=3,
            clip_on=False,
        )
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=1.0, zorder=2), autolim=False)
