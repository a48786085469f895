"""Figure of a router's decisions: an image's tiles with their scores, with compressed tiles shaded.

Source: ViCO (arXiv 2510.12793), Figures 3 to 5, which show the routing of an image's tiles. Differs: each tile shows
its score, and the thumbnail, which is also routed, is drawn next to the tiles.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vico_eval.plain_text import one_line

DPI = 160

# Okabe and Ito's blue, which is distinct from white and black for every colour vision, and in greyscale.
_COMPRESSED, _KEPT = "#0072B2", "#B5B5B5"
_INK, _FAINT = "#222222", "#6B6B6B"
_SHADE = 0.38

# Inches. The grid's longer side is _GRID, but tiles are at most _TILE, and large enough that scores are readable.
_GRID, _TILE, _SMALLEST_TILE = 7.4, 2.6, 0.56
_MARGIN, _HEADER, _FOOTER, _CAPTION = 0.28, 0.86, 0.44, 0.26
_GAP, _BESIDE = 0.02, 0.3
_LEAST_WIDTH = 5.4

# matplotlib lists the keys' types one by one, differently in each release.
_STYLE: Any = {"font.family": "DejaVu Sans", "text.parse_math": False}


@dataclass(frozen=True, eq=False, kw_only=True)
class RoutedImage:
    """An image's tiles and the router's decisions."""

    title: str
    method: str
    width: int
    height: int
    """Size of the image, px. It was stretched to the grid for tiling, and is drawn in its own aspect ratio."""

    columns: int
    rows: int

    tiles: np.ndarray
    """[tiles, S, S, 3], uint8, row by row, followed by the thumbnail if there is one."""

    p_compress: tuple[float, ...]
    """[tiles], the router's probability of compressing each."""

    compressed: tuple[bool, ...]
    """[tiles], the decisions."""

    visual_tokens: tuple[int, ...]
    """[tiles], visual tokens of each."""

    visual_tokens_uncompressed: int
    """Total visual tokens without compression."""

    @property
    def has_thumbnail(self) -> bool:
        """True if a thumbnail follows the tiles of the grid."""
        return len(self.tiles) > self.columns * self.rows

    @property
    def totals(self) -> str:
        """The counts as text; the thumbnail counts as a tile."""
        num_tiles, visual = len(self.tiles), sum(self.visual_tokens)
        return (
            f"{sum(self.compressed)} of {num_tiles} tile{'s' * (num_tiles > 1)} compressed, {visual:,} of "
            f"{self.visual_tokens_uncompressed:,} visual tokens ({visual / self.visual_tokens_uncompressed:.0%})"
        )


def draw_routing(routed: RoutedImage) -> Figure:
    """Draw the image as a grid of tiles with their scores, compressed ones shaded, and the thumbnail."""
    width, height = _tile_size(routed)
    grid_width, grid_height = routed.columns * width, routed.rows * height
    thumbnail = min(max(0.4 * grid_height, 1.1), _TILE) if routed.has_thumbnail else 0.0
    body = max(grid_height, thumbnail + _CAPTION if thumbnail else 0.0)
    content = grid_width + (_BESIDE + thumbnail if thumbnail else 0.0)
    total_width = max(content, _LEAST_WIDTH) + 2 * _MARGIN
    total_height = _HEADER + body + _FOOTER
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(total_width, total_height), dpi=DPI, facecolor="white")
        # One unit of the axes is an inch, counted from the top left.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, total_width), ylim=(total_height, 0))
        axes.set_axis_off()
        for place in range(routed.columns * routed.rows):
            row, column = divmod(place, routed.columns)
            _draw_tile(axes, routed, place, (_MARGIN + column * width, _HEADER + row * height, width, height))
        if thumbnail:
            side = _MARGIN + grid_width + _BESIDE
            _draw_tile(axes, routed, len(routed.tiles) - 1, (side, _HEADER, thumbnail, thumbnail))
            middle, below = side + thumbnail / 2, _HEADER + thumbnail + 0.16
            axes.text(middle, below, "thumbnail", fontsize=9, color=_FAINT, ha="center")
        _write_words(axes, routed, total_width, _HEADER + body + 0.3)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the same figure gives the same bytes."""
    with mpl.rc_context(_STYLE):
        figure.savefig(path, format="png", metadata={"Software": None})


def _tile_size(routed: RoutedImage) -> tuple[float, float]:
    """Width and height of a drawn tile, inches. Extreme aspect ratios are reduced."""
    shape = (routed.width / routed.columns) / (routed.height / routed.rows)
    width = min(max(shape, 0.5), 2.0)
    scale = min(_GRID / max(routed.columns * width, routed.rows), _TILE / max(width, 1.0))
    scale = max(scale, _SMALLEST_TILE / min(width, 1.0))
    return scale * width, scale


def _draw_tile(axes: Axes, routed: RoutedImage, place: int, box: tuple[float, float, float, float]) -> None:
    """Draw a tile at (left, top, width, height), inches."""
    left, top, width, height = box
    compressed = routed.compressed[place]
    left, top, width, height = left + _GAP, top + _GAP, width - 2 * _GAP, height - 2 * _GAP
    axes.imshow(routed.tiles[place], extent=(left, left + width, top + height, top), aspect="auto", zorder=1)
    if compressed:
        axes.add_patch(Rectangle((left, top), width, height, color=_COMPRESSED, alpha=_SHADE, linewidth=0, zorder=2))
    colour, line = (_COMPRESSED, 1.8) if compressed else (_KEPT, 0.8)
    # matplotlib centres a line on the rectangle's edge. Move it inside, so that the gap between tiles stays white.
    in_by = line / 72 / 2
    inner = Rectangle((left + in_by, top + in_by), width - 2 * in_by, height - 2 * in_by)
    inner.set(fill=False, edgecolor=colour, linewidth=line, zorder=3)
    axes.add_patch(inner)
    # Four characters are two and a half times as wide as high; they take at most about a third of a tile.
    size = min(9.5, 72 * 0.36 * width / 2.5, 72 * 0.3 * height)
    inset = 0.65 * size / 72
    axes.text(
        left + inset,
        top + inset,
        f"{routed.p_compress[place]:.2f}",
        fontsize=size,
        fontweight="bold" if compressed else "normal",
        color="white" if compressed else _INK,
        ha="left",
        va="top",
        zorder=4,
        bbox={
            "boxstyle": "round,pad=0.25",
            "facecolor": _COMPRESSED if compressed else "white",
            "edgecolor": "white" if compressed else colour,
            "linewidth": 0.6,
        },
    )


def _write_words(axes: Axes, routed: RoutedImage, width: float, bottom: float) -> None:
    """Write title and totals above, and a legend of the colours below."""
    room = int((width - 2 * _MARGIN) / 0.115)
    title = one_line(routed.title)
    title = title if len(title) <= room else f"{title[: room - 1].rstrip()}…"
    axes.text(_MARGIN, 0.24, title, fontsize=12.5, fontweight="bold", color=_INK, va="center")
    axes.text(_MARGIN, 0.54, routed.totals, fontsize=9.5, color=_FAINT, va="center")
    legend = (("kept", "white", _KEPT, 1.0), ("compressed", _COMPRESSED, _COMPRESSED, _SHADE))
    left = _MARGIN
    for name, face, edge, alpha in legend:
        axes.add_patch(Rectangle((left, bottom - 0.08), 0.2, 0.16, facecolor=face, alpha=alpha, linewidth=0))
        axes.add_patch(Rectangle((left, bottom - 0.08), 0.2, 0.16, fill=False, edgecolor=edge, linewidth=1.0))
        axes.text(left + 0.28, bottom, name, fontsize=9, color=_FAINT, va="center")
        left += 0.28 + 0.085 * len(name) + 0.2
    axes.text(left, bottom, f"number: p(compress); method {routed.method}", fontsize=9, color=_FAINT, va="center")
