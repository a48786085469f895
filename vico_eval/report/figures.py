"""Retention against compression as a picture: one point a row, error bars from paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from vico_eval.errors import ReportError
from vico_eval.report.figure_style import COLOURS, FAINT, INK, MARKERS, STYLE, compared_rows, literal, title_of
from vico_eval.report.layout import Table

_LABEL_DISTANCES = (9.0, 15.0, 24.0, 36.0, 52.0)
# Right, left, above, below, then the corners: the first place that is free is taken.
_LABEL_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_SIDE_ALIGNMENT: dict[int, Any] = {1: "left", -1: "right", 0: "center"}
_LEADER_FROM = 26.0


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
        figure = Figure(figsize=(7.6, 4.8), dpi=200)
        axes = figure.add_axes((0.092, 0.122, 0.888, 0.665))
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
        _tile_axis(axes, table.summary)
        figure.text(0.02, 0.975, title_of(table), fontsize=12.5, fontweight="bold", color=INK, va="top")
        documents = f"{table.summary['documents'].max():,.0f} documents a system"
        key = f"{documents}; bars: one paired standard error; grey line: Pareto front"
        figure.text(0.02, 0.918, key, fontsize=9, color=FAINT, va="top")
        _label(figure, axes, points)
    return figure


class HasBoth(Protocol):
    """What the front compares, in percent of the baseline."""

    @property
    def saved(self) -> float:
        """Visual tokens."""

    @property
    def retention(self) -> float:
        """Score."""


Compared = TypeVar("Compared", bound=HasBoth)


def pareto_front(points: Sequence[Compared]) -> list[Compared]:
    """The points that no other one equals or surpasses in both numbers and surpasses in one, by tokens saved."""
    front: list[Compared] = []
    # From the most that is saved: a point is on the front if it retains more than every one that saves more.
    for point in sorted(points, key=lambda point: (-point.saved, -point.retention)):
        if not front or point.retention > front[-1].retention:
            front.append(point)
    return front[::-1]


def write_figure(figure: Figure, out: Path, stem: str = "retention") -> tuple[Path, Path]:
    """Writes `<stem>.pdf` (vector) and `<stem>.png`; the same figure gives the same bytes."""
    pdf, png = out / f"{stem}.pdf", out / f"{stem}.png"
    with mpl.rc_context(STYLE):
        # Dates and versions would make every rerun a change.
        figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None, "Creator": None})
        figure.savefig(png, metadata={"Software": None})
    return pdf, png


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
    axes.set_ylim(low - 0.10 * room, max(high, 100.0) + 0.10 * room)
    axes.axhline(100, color="#8A8A8A", linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
    axes.grid(axis="y", color="#E9E9E9", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)
    shown = baseline if len(baseline) <= 30 else "the baseline"
    axes.set_xlabel(f"Visual tokens saved, % of {literal(shown)}")
    axes.set_ylabel(f"Score retained, % of {literal(shown)}")


def _tile_axis(axes: Axes, summary: pd.DataFrame) -> None:
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
    """Names each point where neither points, bars nor other labels are; a thin line leads to a distant name."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    unit = figure.dpi / 72
    area = axes.get_window_extent(renderer)
    taken = [_occupied(axes, point, unit) for point in points] + _steps(axes, points, unit)
    # The crowded ones choose first: they have the fewest free places.
    for place in sorted(range(len(points)), key=lambda place: (_nearest(taken[: len(points)], place), place)):
        point = points[place]
        style: Any = {
            "fontsize": 9,
            "color": point.colour,
            "fontweight": "bold" if place == len(points) - 1 and not point.is_baseline else "normal",
            "linespacing": 1.2,
            # A name may cross a grid line; the halo keeps it readable.
            "path_effects": [withStroke(linewidth=3, foreground="white")],
        }
        ruler = figure.text(0, 0, _name(point), **style)
        extent = ruler.get_window_extent(renderer)
        ruler.remove()
        offset, box = _free_place(taken[place], (extent.width, extent.height), taken, area, unit)
        taken.append(box)
        distance = float(np.hypot(*offset))
        axes.annotate(
            _name(point),
            (point.saved, point.shown),
            xytext=offset,
            textcoords="offset points",
            ha=_SIDE_ALIGNMENT[int(np.sign(offset[0]))],
            va="center",
            arrowprops={"arrowstyle": "-", "color": point.colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 5}
            if distance > _LEADER_FROM
            else None,
            zorder=4,
            **style,
        )


def _free_place(
    marker: Bbox, size: tuple[float, float], taken: list[Bbox], area: Bbox, unit: float
) -> tuple[tuple[float, float], Bbox]:
    """Offset in points of a label's anchor (vertical centre, side next to the point) and its box in pixels."""
    width, height = size
    x, y = (marker.x0 + marker.x1) / 2, (marker.y0 + marker.y1) / 2
    best: tuple[float, tuple[float, float], Bbox] | None = None
    for distance in _LABEL_DISTANCES:
        for across, up in _LABEL_SIDES:
            shift = distance * unit / float(np.hypot(across, up))
            # The side that faces the point is `shift` away; straight above or below, the label is centred.
            middle_x, middle_y = x + across * shift, y + up * (shift + height / 2)
            left = middle_x - (width / 2 if across == 0 else 0 if across > 0 else width)
            box = Bbox.from_bounds(left, middle_y - height / 2, width, height).padded(1.5 * unit)
            cost = sum(_overlap(box, other) for other in taken) + box.width * box.height - _overlap(box, area)
            if best is None or cost < best[0] - 1e-6:
                best = (cost, ((middle_x - x) / unit, (middle_y - y) / unit), box)
        if best is not None and best[0] < 1e-6:
            break
    assert best is not None
    return best[1], best[2]


def _occupied(axes: Axes, point: Point, unit: float) -> Bbox:
    """The point's marker and error bar, in pixels."""
    error = float(np.nan_to_num(point.error))
    (x, low), (_, high) = axes.transData.transform(
        [(point.saved, point.shown - error), (point.saved, point.shown + error)]
    )
    radius = 5 * unit
    return Bbox.from_extents(x - radius, low - radius, x + radius, high + radius)


def _steps(axes: Axes, points: list[Point], unit: float) -> list[Bbox]:
    """The lines of the Pareto front, in pixels."""
    boxes = []
    for before, after in pairwise(pareto_front(points)):
        (x0, y0), (x1, y1) = axes.transData.transform([(before.saved, before.shown), (after.saved, after.shown)])
        boxes += [Bbox.from_extents(x0, y1, x0, y0).padded(unit), Bbox.from_extents(x0, y1, x1, y1).padded(unit)]
    return boxes


def _nearest(boxes: list[Bbox], place: int) -> float:
    centres = [(box.x0 + box.width / 2, box.y0 + box.height / 2) for box in boxes]
    distances = [np.hypot(x - centres[place][0], y - centres[place][1]) for x, y in centres]
    return float(min((d for index, d in enumerate(distances) if index != place), default=0.0))


def _overlap(first: Bbox, second: Bbox) -> float:
    shared = Bbox.intersection(first, second)
    return 0.0 if shared is None else float(shared.width * shared.height)


def _name(point: Point) -> str:
    line = " ".join(point.title.split())
    line = line if len(line) <= 34 else f"{line[:33].rstrip()}…"
    below = " (below the scale)" if point.shown != point.retention else ""
    return f"{literal(line)}\n{point.retention:.1f}%{below}"
