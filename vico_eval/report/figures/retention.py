"""Retention against compression as a picture: one point a row, error bars from paired differences."""

from dataclasses import dataclass
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from vico_eval.errors import ReportError
from vico_eval.report.figures.labels import Label, place_labels
from vico_eval.report.figures.style import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    STYLE,
    compared_rows,
    literal,
    title_of,
)
from vico_eval.report.stats.retention import pareto_front
from vico_eval.report.tables.table import Table


@dataclass(frozen=True, slots=True)
class Point:
    """A row of the picture; saved, retention and error in percent of the baseline."""

    title: str
    saved: float
    retention: float
    error: float
    shown: float
    """Where it stands on the picture: its retention, or the picture's floor where it is off scale."""

    colour: str
    marker: str
    is_hollow: bool
    is_baseline: bool


def draw_retention(table: Table) -> Figure:
    """Relative retention over the share of visual tokens saved, both against the baseline, with paired standard errors.

    A second axis above reads the share of compressed tiles, where the rows' counts agree on what a tile saves. Rows
    without both numbers are left out.

    A line joins the Pareto front: the rows to which no other one is superior in both. It is one of means, so a row near
    it may belong on it.

    Raises:
        ReportError: no row has both numbers.
    """
    points = _points(table)
    if not points:
        raise ReportError(
            "No row has both a retention and token counts, so there is nothing to draw. Every benchmark of the table "
            "and token accounts are needed; the table's notes say what is missing."
        )
    with mpl.rc_context(STYLE):
        # Inches; more names than a dozen need more room.
        body = 3.19 + 0.2 * max(len(points) - 12, 0)
        height = 0.586 + body + 1.024
        figure = Figure(figsize=(7.6, height), dpi=200)
        axes = figure.add_axes((0.092, 0.586 / height, 0.888, body / height))
        _frame(axes, points, table.baseline)
        front = pareto_front(points)
        # What is known is that so much can be kept while at least so much is saved: steps, not slopes.
        axes.plot(
            [point.saved for point in front],
            [point.shown for point in front],
            drawstyle="steps-pre",
            color="#B0B0B0",
            linewidth=1.1,
            zorder=2,
        )
        for point in points:
            axes.errorbar(
                point.saved,
                point.shown,
                yerr=None if np.isnan(point.error) else point.error,
                linestyle="none",
                marker=point.marker,
                color=point.colour,
                markersize=7.5 if point.is_hollow else 8.5,
                markerfacecolor="white" if point.is_hollow else point.colour,
                markeredgecolor=point.colour if point.is_hollow else "white",
                markeredgewidth=1.6 if point.is_hollow else 0.9,
                elinewidth=1.3,
                capsize=3,
                zorder=3,
            )
        _tile_axis(axes, table)
        figure.text(0.02, 1 - 0.12 / height, title_of(table), fontsize=12.5, fontweight="bold", color=INK, va="top")
        documents = f"{table.summary['documents'].max():,.0f} documents a system"
        key = f"{documents}; bars: one paired standard error"
        if len(front) > 1:
            key += "; grey line: Pareto front"
        figure.text(0.02, 1 - 0.394 / height, key, fontsize=9, color=FAINT, va="top")
        _label(figure, axes, points)
    return figure


def _points(table: Table) -> list[Point]:
    if table.summary.empty:
        return []
    known = table.summary.dropna(subset=["retention", "token_share"])
    floor = _floor(known["retention"])
    others = compared_rows(table)
    points = []
    for title, row in known.iterrows():
        is_baseline = title == table.baseline
        place = 0 if is_baseline else others.index(title)
        retention = float(row["retention"])
        is_below = retention < floor
        points.append(
            Point(
                title=str(title),
                saved=100 - float(row["token_share"]),
                retention=retention,
                error=float("nan") if is_baseline or is_below else float(row["retention_se"]),
                shown=floor if is_below else retention,
                colour=INK if is_baseline else COLOURS[place % len(COLOURS)],
                marker="o" if is_baseline else "v" if is_below else MARKERS[place % len(MARKERS)],
                is_hollow=is_baseline or is_below,
                is_baseline=is_baseline,
            )
        )
    return points


def _floor(retention: pd.Series) -> float:
    """Below it the few rows that would flatten all others are drawn at the edge, with their number; -inf if none.

    A row is so far off if a gap of more than half of the whole range parts at most a quarter of the rows from the rest.
    """
    values = np.sort(retention.to_numpy(dtype=float))
    gaps = np.diff(values)
    if gaps.size < 3:
        return float("-inf")
    place = int(np.argmax(gaps))
    if gaps[place] <= 0.5 * (values[-1] - values[0]) or place + 1 > len(values) / 4:
        return float("-inf")
    rest = values[place + 1 :]
    return float(rest[0] - 0.22 * max(rest[-1] - rest[0], 4.0))


def _frame(axes: Axes, points: list[Point], baseline: str) -> None:
    saved = [point.saved for point in points]
    low = min(point.shown - np.nan_to_num(point.error) for point in points)
    high = max(point.shown + np.nan_to_num(point.error) for point in points)
    room = max(high - low, 4.0)
    axes.set_xlim(min(0.0, *saved) - 5, max(10.0, *saved) + 9)
    spare = (room - (high - low)) / 2
    axes.set_ylim(low - 0.10 * room - spare, max(high, 100.0) + 0.10 * room + spare)
    axes.axhline(100, color="#8A8A8A", linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
    axes.grid(axis="y", color="#E9E9E9", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)
    shown = baseline if len(baseline) <= 30 else "the baseline"
    axes.set_xlabel(f"Visual tokens saved, % of {literal(shown)}")
    axes.set_ylabel(f"Score retained, % of {literal(shown)}")


def _tile_axis(axes: Axes, table: Table) -> None:
    summary = table.summary
    # Against a baseline that compresses tiles itself, as many of them save other shares.
    if summary.loc[table.baseline, "tile_ratio"] != 0:
        return
    routed = summary[summary["tile_ratio"] > 0].dropna(subset=["token_share"])
    saved_per_tile = (100 - routed["token_share"]) / routed["tile_ratio"]
    # Only where a compressed tile saves the same share in every row are the two scales one.
    if routed.empty or not np.allclose(saved_per_tile, saved_per_tile.iloc[0], rtol=0.01):
        return
    slope = float(saved_per_tile.iloc[0])
    above = axes.secondary_xaxis(
        "top", functions=(lambda saved: np.asarray(saved) / slope, lambda ratio: np.asarray(ratio) * slope)
    )
    above.set_xticks(np.arange(0, 101, 25))
    above.set_xlabel("Compressed tiles, %", fontsize=9, color=FAINT, labelpad=5)
    above.tick_params(length=3, labelsize=9)
    above.spines["top"].set_visible(True)
    above.spines["top"].set_color("#C4C4C4")


def _label(figure: Figure, axes: Axes, points: list[Point]) -> None:
    unit = figure.dpi / 72
    labels = [
        Label(
            text=_name(point),
            at=(point.saved, point.shown),
            mark=_occupied(axes, point, unit),
            colour=point.colour,
            is_bold=place == len(points) - 1 and not point.is_baseline,
        )
        for place, point in enumerate(points)
    ]
    place_labels(figure, axes, labels, _steps(axes, points))


def _occupied(axes: Axes, point: Point, unit: float) -> Bbox:
    """The point's marker and error bar, in pixels."""
    error = float(np.nan_to_num(point.error))
    (x, low), (_, high) = axes.transData.transform(
        [(point.saved, point.shown - error), (point.saved, point.shown + error)]
    )
    radius = 5 * unit
    return Bbox.from_extents(x - radius, low - radius, x + radius, high + radius)


def _steps(axes: Axes, points: list[Point]) -> list[Bbox]:
    """The lines of the Pareto front, in pixels."""
    boxes = []
    for before, after in pairwise(pareto_front(points)):
        (x0, y0), (x1, y1) = axes.transData.transform([(before.saved, before.shown), (after.saved, after.shown)])
        boxes += [Bbox.from_extents(x0, y1, x0, y0), Bbox.from_extents(x0, y1, x1, y1)]
    return boxes


def _name(point: Point) -> str:
    line = " ".join(point.title.split())
    line = line if len(line) <= 34 else f"{line[:33].rstrip()}…"
    below = " (below the scale)" if point.shown != point.retention else ""
    return f"{literal(line)}\n{point.retention:.1f}%{below}"
