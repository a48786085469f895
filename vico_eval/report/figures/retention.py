"""Scatter plot of retention against visual tokens or another cost, with error bars from paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vico_eval.errors import ReportError
from vico_eval.report.costs.axis import CostAxis
from vico_eval.report.figures.labels import fitting, spread
from vico_eval.report.figures.style import FAINT, GRID, INK, LINE, RULE, Look, Sheet, looks, named_baseline
from vico_eval.report.stats.retention import pareto_front
from vico_eval.report.tables.table import Table

# Inches: left of, below and above the axes, and the gap of a broken vertical axis.
_LEFT, _BELOW, _ABOVE, _GAP = 0.42, 0.38, 0.08, 0.09

# Inches from the axes to the end of a number and to the start of a name.
_NUMBER, _NAME = 0.58, 0.63

_NOTHING = (
    "no row has both a retention and token counts. These need scores on every benchmark of the table, and token "
    "accounts; the table's notes list what is missing."
)
_NOTHING_OF_COST = (
    "no row has both a retention and {} that can be compared with the baseline's. These need scores on every "
    "benchmark of the table, and runs with this cost (see costs.csv, and not_comparable in time.csv). Choose another "
    "cost with --pareto."
)

_SLOWER, _SLOWER_WIDTH = " (slower)", 0.46
"""Suffix to the name of a row that takes more time despite fewer operations, and its width in inches."""

_FEW = 1 / 3
"""Largest share of rows below the break of the axis."""

_HALF_MARK = 0.03
"""Half the height of the stroke that marks the break, in inches."""


@dataclass(frozen=True, slots=True)
class Point:
    """A row in the figure; cost, retention and error in percent of the baseline."""

    title: str
    cost: float
    """Visual tokens, or the axis's cost in their place."""

    retention: float
    error: float
    look: Look
    is_slower: bool = False
    """The row takes more time than the baseline despite fewer operations."""

    @property
    def saved(self) -> float:
        """Saving in percent; negative if the row costs more than the baseline."""
        return 100 - self.cost


def draw_retention(table: Table, sheet: Sheet | None = None, axis: CostAxis | None = None) -> Figure:
    """Plot relative retention over the share of visual tokens, both relative to the baseline, with paired standard
    errors.

    With `axis`, the plot is over another cost, and rows that take more time despite fewer operations are marked. A line
    joins the Pareto front: the rows that no other row beats in both. It is based on means, so a row close to it may
    belong to it. If a few rows are far below the others, the vertical axis is broken, and each part has its own scale.
    Rows without both numbers are left out.

    Raises:
        ReportError: no row has both numbers.
    """
    points = _points(table, axis)
    if not points:
        raise ReportError(_NOTHING if axis is None else _NOTHING_OF_COST.format(axis.label.lower()))
    sheet = sheet or Sheet()
    more = _SLOWER_WIDTH if any(point.is_slower for point in points) else 0.0
    beside = 1.66 if sheet.is_narrow else 2.1 + more
    with mpl.rc_context(sheet.style):
        body = max(1.9 if sheet.is_narrow else 2.5, 1.05 * LINE * len(points))
        height = _BELOW + body + _ABOVE
        figure = Figure(figsize=(sheet.width, height), dpi=300)
        break_at = _break(pd.Series([point.retention for point in points]))
        parts = [[point for point in points if (point.retention < break_at) == is_below] for is_below in (False, True)]
        share = 0.72 if parts[1] else 1.0
        boxes = [(_BELOW + body * (1 - share) + (_GAP if parts[1] else 0), body * share - (_GAP if parts[1] else 0))]
        boxes += [(_BELOW, body * (1 - share))] if parts[1] else []
        width = sheet.width - _LEFT - beside
        drawn = [
            figure.add_axes((_LEFT / sheet.width, bottom / height, width / sheet.width, tall / height))
            for bottom, tall in boxes
        ]
        for axes, part in zip(drawn, parts, strict=False):
            _draw(axes, part, points)
        if len(drawn) > 1:
            _mark_break(figure, drawn, sheet)
        shown = named_baseline(table.baseline, 20)
        drawn[-1].set_xlabel(f"{'Visual tokens' if axis is None else axis.label}, % of {shown}")
        middle = (_BELOW + body / 2) / height
        figure.text(0.06 / sheet.width, middle, f"Score, % of {shown}", rotation=90, va="center", color=INK)
        _name(figure, drawn, parts)
    return figure


def _points(table: Table, axis: CostAxis | None) -> list[Point]:
    if table.summary.empty:
        return []
    costs = table.summary["token_share"] if axis is None else table.summary.index.map(axis.shares)
    known = table.summary.assign(cost=costs).dropna(subset=["retention", "cost"])
    own = looks(table)
    return [
        Point(
            title=str(title),
            cost=float(row["cost"]),
            retention=float(row["retention"]),
            error=float("nan") if title == table.baseline else float(row["retention_se"]),
            look=own[str(title)],
            is_slower=axis is not None and str(title) in axis.slower,
        )
        for title, row in known.iterrows()
    ]


def _break(retention: pd.Series) -> float:
    """Retention below which rows are drawn below a break of the axis; -inf without a break.

    The axis is broken if at most a third of the rows are further from the others than those are from each other, and
    the others take less than half of the whole range.
    """
    values = np.sort(retention.to_numpy(dtype=float))
    for place in range(1, int(len(values) * _FEW) + 1):
        rest, gap = values[-1] - values[place], values[place] - values[place - 1]
        if gap > max(rest, 4.0) and rest < 0.5 * (values[-1] - values[0]):
            return float(values[place])
    return float("-inf")


def _draw(axes: Axes, part: Sequence[Point], points: Sequence[Point]) -> None:
    """Draw the points of one part of the axis, and the segment of the front within it."""
    front = pareto_front(points)
    # A step, not a slope: a point shows what is reachable with its tokens, and nothing about values between points.
    axes.plot(
        [point.cost for point in front],
        [point.retention for point in front],
        drawstyle="steps-pre",
        color="#B0B0B0",
        linewidth=0.9,
        zorder=2,
    )
    for point in part:
        look = point.look
        axes.errorbar(
            point.cost,
            point.retention,
            yerr=None if np.isnan(point.error) else point.error,
            linestyle="none",
            marker=look.marker,
            color=look.colour,
            markersize=5,
            markerfacecolor="white" if look.is_hollow else look.colour,
            markeredgecolor=look.colour if look.is_hollow else "white",
            markeredgewidth=1.1 if look.is_hollow else 0.5,
            elinewidth=0.9,
            capsize=1.8,
            capthick=0.9,
            zorder=3,
        )
    costs = [point.cost for point in points]
    room = 0.05 * max(max(costs) - min(costs), 20.0)
    # Costs decrease to the right, so better methods are at the top right.
    axes.set_xlim(max(100.0, *costs) + room, max(min(costs) - room, 0.0))
    low = min(point.retention - np.nan_to_num(point.error) for point in part)
    high = max(point.retention + np.nan_to_num(point.error) for point in part)
    spare = max(0.07 * (high - low), (4.0 - (high - low)) / 2)
    axes.set_ylim(low - spare, high + spare)
    axes.axhline(100, color=RULE, linewidth=0.7, linestyle=(0, (5, 4)), zorder=1)
    axes.grid(axis="y", color=GRID, linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=6 if len(part) > len(points) / 2 else 3)


def _mark_break(figure: Figure, drawn: Sequence[Axes], sheet: Sheet) -> None:
    """Mark the break with two strokes on the vertical axis and a label."""
    upper, lower = drawn
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(axis="x", length=0, labelbottom=False)
    width, height = figure.get_size_inches()
    for edge in (upper.get_position().y0, lower.get_position().y1):
        across, up = _HALF_MARK * 1.6 / width, _HALF_MARK / height
        left = upper.get_position().x0
        figure.add_artist(
            mpl.lines.Line2D([left - across, left + across], [edge - up, edge + up], color=RULE, linewidth=0.8)
        )
    middle = (upper.get_position().y0 + lower.get_position().y1) / 2
    figure.text(
        upper.get_position().x0 + 0.09 / sheet.width,
        middle,
        "axis broken",
        color=FAINT,
        va="center",
        fontstyle="italic",
    )


def _name(figure: Figure, drawn: Sequence[Axes], parts: Sequence[Sequence[Point]]) -> None:
    """Write names and numbers to the right of the axes, in the order of the points, with a thin leader to each
    point."""
    width, height = figure.get_size_inches()
    named = [
        (
            point,
            axes,
            figure.transFigure.inverted().transform(axes.transData.transform((point.cost, point.retention))),
        )
        for axes, part in zip(drawn, parts, strict=False)
        for point in part
    ]
    named.sort(key=lambda entry: -entry[2][1])
    right = drawn[0].get_position().x1
    heights = spread([at[1] for _, _, at in named], LINE / height, 0.5 * LINE / height, 1 - 0.5 * LINE / height)
    for (point, axes, _), up in zip(named, heights, strict=True):
        look = point.look
        words: dict[str, Any] = {"color": look.colour, "va": "center_baseline"}
        figure.text(right + _NUMBER / width, up, f"{point.retention:.1f}", ha="right", **words)
        mark, room = (_SLOWER, _SLOWER_WIDTH) if point.is_slower else ("", 0.02)
        name = fitting(figure, point.title, width * (1 - right) - _NAME - room) + mark
        figure.text(right + _NAME / width, up, name, ha="left", **words)
        # The marker is repeated next to the name, so that the leader is not needed to identify a point.
        figure.add_artist(
            mpl.lines.Line2D(
                [right + 0.17 / width],
                [up],
                marker=look.marker,
                color=look.colour,
                markersize=4.5,
                markerfacecolor="white" if look.is_hollow else look.colour,
                markeredgewidth=1.0 if look.is_hollow else 0.3,
                linestyle="none",
            )
        )
        axes.annotate(
            "",
            (point.cost, point.retention),
            xytext=(right + 0.1 / width, up),
            textcoords="figure fraction",
            arrowprops={"arrowstyle": "-", "color": "#C0C0C0", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3},
            annotation_clip=False,
            zorder=1,
        )
