"""Names beside the points of a picture, where neither points nor lines nor other names are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

_DISTANCES = (9.0, 15.0, 24.0, 36.0, 52.0)
# Right, left, above, below, then the corners, then between them: the first place that is free is taken.
_SIDES = (
    *((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)),
    *((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)),
    *((1.0, 0.5), (1.0, -0.5), (-1.0, 0.5), (-1.0, -0.5)),
)
_ALIGNMENT: dict[int, Any] = {1: "left", -1: "right", 0: "center"}
_LEADER_FROM = 26.0

# What a name must not hide or leave costs more than another name beneath it; a thin line takes little of its area.
_MARK_COST, _LINE_COST, _OUTSIDE_COST = 4.0, 8.0, 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A point's name and what is drawn at the point."""

    text: str
    at: tuple[float, float]
    """The point, in the units of the axes."""

    mark: Bbox
    """The point's marker and error bar, in pixels."""

    colour: str
    is_bold: bool = False


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label], lines: Sequence[Bbox] = ()) -> None:
    """Writes each label where neither marks, lines nor other labels are, if there is such a place near enough.

    A thin line leads to a label that is far from its point. The figure's size and the limits of the axes must be final.

    Args:
        figure: the one that `axes` is of.
        axes: where the points are.
        labels: one a point.
        lines: boxes of upright and level lines, in pixels.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    unit = figure.dpi / 72
    area = axes.get_window_extent(renderer)
    marks = [label.mark for label in labels]
    # A little air, in which the label still counts as touching the line.
    padded = [line.padded(1.5 * unit) for line in lines]
    taken: list[Bbox] = []
    # The crowded ones choose first: they have the fewest free places.
    for place in sorted(range(len(labels)), key=lambda place: (_nearest(marks, place), place)):
        label = labels[place]
        style: Any = {
            "fontsize": 9,
            "color": label.colour,
            "fontweight": "bold" if label.is_bold else "normal",
            "linespacing": 1.2,
            # A name may cross a grid line; the halo keeps it readable.
            "path_effects": [withStroke(linewidth=3, foreground="white")],
        }
        ruler = figure.text(0, 0, label.text, **style)
        extent = ruler.get_window_extent(renderer)
        ruler.remove()

        def cost(box: Bbox) -> float:
            outside = box.width * box.height - _overlap(box, area)
            hidden = _MARK_COST * _overlaps(box, marks) + _LINE_COST * _overlaps(box, padded)
            return hidden + _overlaps(box, taken) + _OUTSIDE_COST * outside

        offset, box = _free_place(label.mark, (extent.width, extent.height), cost, unit)
        taken.append(box)
        distance = float(np.hypot(*offset))
        axes.annotate(
            label.text,
            label.at,
            xytext=offset,
            textcoords="offset points",
            ha=_ALIGNMENT[int(np.sign(offset[0]))],
            va="center",
            arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 5}
            if distance > _LEADER_FROM
            else None,
            zorder=4,
            **style,
        )


def _free_place(
    mark: Bbox, size: tuple[float, float], cost_of: Callable[[Bbox], float], unit: float
) -> tuple[tuple[float, float], Bbox]:
    """Offset in points of a label's anchor (vertical centre, side next to the point) and its box in pixels."""
    width, height = size
    x, y = (mark.x0 + mark.x1) / 2, (mark.y0 + mark.y1) / 2
    best: tuple[float, tuple[float, float], Bbox] | None = None
    for distance in _DISTANCES:
        for across, up in _SIDES:
            shift = distance * unit / float(np.hypot(across, up))
            # The side that faces the point is `shift` away; straight above or below, the label is centred.
            middle_x, middle_y = x + across * shift, y + up * (shift + height / 2)
            left = middle_x - (width / 2 if across == 0 else 0 if across > 0 else width)
            box = Bbox.from_bounds(left, middle_y - height / 2, width, height).padded(1.5 * unit)
            cost = cost_of(box)
            if best is None or cost < best[0] - 1e-6:
                best = (cost, ((middle_x - x) / unit, (middle_y - y) / unit), box)
        if best is not None and best[0] < 1e-6:
            break
    assert best is not None
    return best[1], best[2]


def _nearest(boxes: Sequence[Bbox], place: int) -> float:
    centres = [(box.x0 + box.width / 2, box.y0 + box.height / 2) for box in boxes]
    distances = [np.hypot(x - centres[place][0], y - centres[place][1]) for x, y in centres]
    return float(min((d for index, d in enumerate(distances) if index != place), default=0.0))


def _overlaps(box: Bbox, others: Sequence[Bbox]) -> float:
    return sum(_overlap(box, other) for other in others)


def _overlap(first: Bbox, second: Bbox) -> float:
    # Not Bbox.intersection, which takes ten times as long: a picture of many rows asks tens of thousands of times.
    shared = 1.0
    for own, other in zip(first.get_points().T.tolist(), second.get_points().T.tolist(), strict=True):
        shared *= max(0.0, min(max(own), max(other)) - max(min(own), min(other)))
    return shared
