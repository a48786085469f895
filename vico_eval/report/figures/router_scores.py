"""Histograms of router scores, with one panel per benchmark and the rows stacked on a common scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from vico_eval.report.figures.labels import fitting
from vico_eval.report.figures.style import FAINT, INK, LINE, TEXT, Sheet, looks
from vico_eval.report.scores.router_scores import EDGES, NUM_BINS, ScoreCounts
from vico_eval.report.stats.retention import AVERAGE, compressed_tile_ratio, with_average
from vico_eval.report.tables.table import Table

_HIGHEST = 20.0
"""Upper limit of the scale, in percent of tiles per bin; a higher bar is cut off there and labelled with its value."""

# Inches.
_HISTOGRAM, _STEP, _BESIDE = 0.22, 0.36, 0.38
_BELOW, _PANEL_TITLE, _TICKS = 0.28, 0.22, 0.24

_NUMBER = 4
"""Width of a label in bins to either side; among bars this close, only the highest is labelled."""


@dataclass(frozen=True, eq=False, slots=True)
class _Histogram:
    """Percentages of a row's tiles on a benchmark, [NUM_BINS]."""

    tiles: np.ndarray
    compressed: np.ndarray | None
    thresholds: tuple[float, ...]


def draw_scores(table: Table, cells: pd.DataFrame, sheet: Sheet | None = None) -> Figure | None:
    """Plot histograms of p_compress over all tiles, by benchmark and row, and `Avg.`, the mean of the histograms.

    Compressed tiles are dark if the accounts identify them; the number beside a histogram is their share, as in the
    table. A dashed line marks the absolute threshold, if the run's record has one: a router per tile compresses no tile
    below it, and a router per image compares it with the mean over an image's tiles. A threshold in the checkpoint is
    not in the record, and a relative threshold corresponds to a different score in each request.

    Args:
        table: the table of measured runs.
        cells: cells of the `Measurements` that it was built from.
        sheet: page format; full page width by default.

    Returns:
        None if no row has scores, or the sheet has no room.
    """
    found = _histograms(cells)
    if not found:
        return None
    titles = [str(title) for title in table.summary.index if any(row == title for row, _ in found)]
    for title in titles:
        if average := _average([found.get((title, column)) for column in table.columns]):
            found[title, AVERAGE] = average
    ratios = with_average(compressed_tile_ratio(cells).reindex(columns=list(table.columns)))
    sheet = sheet or Sheet()
    with mpl.rc_context(sheet.style):
        return _draw(table, titles, found, ratios, sheet)


def _histograms(cells: pd.DataFrame) -> dict[tuple[str, str], _Histogram]:
    """Histograms by row and benchmark, over all runs of the row; left out if a run has no scores."""
    found = {}
    for (title, column), own in cells.groupby(["row", "benchmark"], sort=False):
        counts = [value for value in own["scores"] if isinstance(value, ScoreCounts)]
        total = sum((each.tiles for each in counts), np.zeros(NUM_BINS))
        if len(counts) < len(own) or not total.any():
            continue
        low = [each.compressed for each in counts if each.compressed is not None]
        found[str(title), str(column)] = _Histogram(
            tiles=100 * total / total.sum(),
            compressed=100 * sum(low) / total.sum() if len(low) == len(counts) else None,
            thresholds=tuple(sorted(own["threshold"].dropna().unique())),
        )
    return found


def _average(histograms: list[_Histogram | None]) -> _Histogram | None:
    known = [each for each in histograms if each is not None]
    if len(known) < len(histograms):
        return None
    low = [each.compressed for each in known if each.compressed is not None]
    return _Histogram(
        tiles=np.mean([each.tiles for each in known], axis=0),
        compressed=np.mean(low, axis=0) if len(low) == len(known) else None,
        thresholds=tuple(sorted({value for each in known for value in each.thresholds})),
    )


def _draw(
    table: Table, titles: list[str], found: Mapping[tuple[str, str], _Histogram], ratios: pd.DataFrame, sheet: Sheet
) -> Figure | None:
    columns = (*table.columns, AVERAGE)
    across = min(2 if sheet.is_narrow else 5, len(columns))
    down = -(-len(columns) // across)
    left = 1.1 if sheet.is_narrow else 1.66
    panel = (sheet.width - left - across * _BESIDE) / across
    body = len(titles) * _STEP
    line = _PANEL_TITLE + body + _TICKS
    top = min(_HIGHEST, max(float(each.tiles.max()) for each in found.values()))
    key = _key(found, top, int(sheet.width / 0.062))
    width, height = sheet.width, down * line + _BELOW + LINE * len(key)
    if not sheet.has_room(height):
        return None
    figure = Figure(figsize=(width, height), dpi=300)
    names = [fitting(figure, title, left - 0.1) for title in titles]
    own_looks = looks(table)
    for number, column in enumerate(columns):
        row, place = divmod(number, across)
        corner = (left + place * (panel + _BESIDE), height - row * line - _PANEL_TITLE - body)
        box = (corner[0] / width, corner[1] / height, panel / width, body / height)
        axes = figure.add_axes(box, label=column)
        _frame(axes, fitting(figure, column, panel + _BESIDE), len(titles))
        if place == 0:
            axes.set_yticks([0.25 - level for level in range(len(titles))], names)
        own = [found.get((title, column)) for title in titles]
        colours = [own_looks[title].colour for title in titles]
        _draw_histograms(axes, own, colours, top)
        for level, (title, histogram, colour) in enumerate(zip(titles, own, colours, strict=True)):
            if place == 0:
                axes.get_yticklabels()[level].set_color(colour)
            if histogram is not None:
                _mark(axes, histogram, -level, top, colour)
            ratio = ratios.loc[title, column] if histogram is not None else np.nan
            words = "–" if np.isnan(ratio) else f"{ratio:.0f}%"
            axes.text(1.06, 0.25 - level, words, color=colour, va="center")
    middle = (left + (across * (panel + _BESIDE) - _BESIDE) / 2) / width
    figure.text(middle, (0.09 + LINE * len(key)) / height, "p(compress)", ha="center")
    for place, words in enumerate(reversed(key)):
        figure.text(0.04 / width, (0.05 + LINE * place) / height, words, color=FAINT)
    return figure


def _key(found: Mapping[tuple[str, str], _Histogram], top: float, longest: int) -> list[str]:
    """A legend of the marks in use, in lines of at most `longest` characters."""
    words = [f"{NUM_BINS} bins, full height {top:.0f}% of the tiles", "right: compressed tiles"]
    if any(each.compressed is not None for each in found.values()):
        words.append("dark: those tiles")
    if any(each.thresholds for each in found.values()):
        words.append("dashed: absolute threshold")
    if any(each.tiles.max() > _HIGHEST for each in found.values()):
        words.append("above a bar: its percentage if cut off")
    return wrap("; ".join(words), longest)


def _frame(axes: Axes, title: str, number: int) -> None:
    """Set up axes with baselines 1 unit apart, the first at 0 and the others below it."""
    axes.set(xlim=(0, 1), ylim=(-(number - 1) - 0.04, _HISTOGRAM / _STEP + 0.3))
    axes.set_title(title, fontsize=TEXT, color=INK, pad=2)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([])
    axes.tick_params(axis="x", length=3, labelsize=TEXT)
    axes.tick_params(axis="y", length=0, pad=4)
    axes.hlines([-level for level in range(number)], 0, 1, color="#C4C4C4", linewidth=0.7, zorder=1)


def _draw_histograms(axes: Axes, histograms: Sequence[_Histogram | None], colours: Sequence[str], top: float) -> None:
    """Draw the histograms of one panel from top to bottom, with None for an empty line. Few shapes are used, since each
    takes time."""
    known = [
        (-level, each, colour) for level, (each, colour) in enumerate(zip(histograms, colours, strict=True)) if each
    ]
    tiles = [_outline(each.tiles, level, top) for level, each, _ in known]
    low = [
        (_outline(each.compressed, level, top), colour) for level, each, colour in known if each.compressed is not None
    ]
    own = [colour for _, _, colour in known]
    shapes = (
        PolyCollection(tiles, label="tiles", facecolors=own, alpha=0.28, linewidths=0, zorder=2),
        PolyCollection(
            [one for one, _ in low], label="compressed", facecolors=[c for _, c in low], linewidths=0, zorder=3
        ),
        LineCollection(tiles, colors=own, linewidths=0.8, joinstyle="miter", zorder=4),
    )
    for shape in shapes:
        axes.add_collection(shape, autolim=False)


def _outline(shares: np.ndarray, level: float, top: float) -> np.ndarray:
    """A histogram's outline, [2 x NUM_BINS + 2, 2], from its lower left to its lower right corner."""
    heights = level + _HISTOGRAM / _STEP / top * np.minimum(shares, top)
    return np.column_stack([np.repeat(EDGES, 2), np.concatenate([[level], np.repeat(heights, 2), [level]])])


def _mark(axes: Axes, histogram: _Histogram, level: float, top: float, colour: str) -> None:
    """Draw a histogram's thresholds, and label bins that exceed the scale."""
    scale = _HISTOGRAM / _STEP / top
    for threshold in histogram.thresholds:
        axes.plot(
            [threshold, threshold],
            [level, level + scale * top],
            color=INK,
            linewidth=0.9,
            linestyle=(0, (3, 2)),
            zorder=5,
        )
    for place, (share, (start, end)) in enumerate(zip(histogram.tiles, pairwise(EDGES), strict=True)):
        around = histogram.tiles[max(0, place - _NUMBER) : place + _NUMBER + 1]
        if share > top * 1.001 and share == around.max():
            axes.text(
                np.clip((start + end) / 2, 0.06, 0.94),
                level + scale * top,
                f"{share:.0f}",
                fontsize=TEXT,
                color=colour,
                ha="center",
                va="bottom",
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=6,
            )
