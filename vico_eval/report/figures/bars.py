"""A table benchmark by benchmark, as grouped bars: what each row retains, and which ratio of tiles it compresses."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from vico_eval.report.figures.style import COLOURS, FAINT, INK, STYLE, compared_rows, literal, title_of
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.table import Table

# Rows differ without colours too. One fewer than there are colours, so that no two of the first 56 rows look alike.
_HATCHES = ("", "////", "....", "\\\\\\\\", "----", "xxxx", "++++")
_GROUP = 0.86
_LEGEND_COLUMNS = 4
_HIGHEST = 130.0
"""Percent; a longer bar, of a row far above the baseline, ends here with its number and doesn't flatten the others."""


def draw_bars(table: Table) -> dict[str, Figure]:
    """The pictures that there are numbers for, by the stem of their files.

    `benchmarks` has each row's score as a percentage of the baseline's, `ratios` the compressed tiles of the rows that
    route them, percent; both with the table's average. A dash stands for what is unknown, and for a percentage of zero.
    """
    retentions = {column: table.retention(column) for column in table.columns}
    retention = {
        row.title: {column: own[row.title] for column, own in retentions.items()} | {AVERAGE: row.values[AVERAGE]}
        for row in table.rows
        if row.kind == "score" and row.title != table.baseline
    }
    # A ratio row stands beneath the row that it is of, under the same title.
    ratios = {row.title: row.values for row in table.rows if row.kind == "ratio"}
    drawn: dict[str, tuple[Mapping[str, Mapping[str, float]], str]] = {
        "benchmarks": (retention, f"Score retained, % of {_short(table.baseline)}"),
        "ratios": (ratios, "Compressed tiles, %"),
    }
    return {
        stem: _draw(table, values, label)
        for stem, (values, label) in drawn.items()
        if any(np.isfinite(value) for row in values.values() for value in row.values())
    }


def _short(title: str) -> str:
    return literal(title) if len(title) <= 30 else "the baseline"


def _draw(table: Table, values: Mapping[str, Mapping[str, float]], label: str) -> Figure:
    columns = (*table.columns, AVERAGE)
    names = [column.replace(" ", "\n") for column in columns]
    places = {title: place for place, title in enumerate([*compared_rows(table), table.baseline])}
    width = _GROUP / len(values)
    # Inches: what a group's bars need, or the longest word beneath it.
    longest = max(len(line) for name in names for line in name.split("\n"))
    group = max(0.095 * len(values) + 0.1, 0.078 * longest + 0.15)
    above = 0.58 + 0.18 * -(-len(values) // _LEGEND_COLUMNS)
    below = 0.24 + 0.16 * max(name.count("\n") + 1 for name in names)
    size = (max(7.6, 0.8 + len(columns) * group), above + 2.9 + below)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=200)
        axes = figure.add_axes((0.62 / size[0], below / size[1], 1 - 0.74 / size[0], 2.9 / size[1]))
        highest = 100.0
        shapes = []
        for number, (title, row) in enumerate(values.items()):
            place = places[title]
            colour = COLOURS[place % len(COLOURS)]
            middles = np.arange(len(columns)) + (number - (len(values) - 1) / 2) * width
            heights = np.array([min(row[column], _HIGHEST) for column in columns])
            highest = max(highest, np.nanmax(heights, initial=0))
            # One shape a row: hundreds of bars take seconds.
            bars = PolyCollection(
                _bars(middles, heights, 0.92 * width),
                facecolor=colour,
                hatch=_HATCHES[place % len(_HATCHES)],
                edgecolor="white",
                linewidth=0,
                label=literal(" ".join(title.split())),
                zorder=2,
            )
            axes.add_collection(bars, autolim=False)
            shapes.append(bars)
            for middle, column in zip(middles, columns, strict=True):
                if not row[column] <= _HIGHEST:
                    is_unknown = np.isnan(row[column])
                    words, height = ("–", 0.0) if is_unknown else (f"{row[column]:.0f}", _HIGHEST)
                    axes.text(middle, height, words, color=colour, fontsize=7, ha="center", va="bottom")
        axes.axhline(100, color="#8A8A8A", linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
        axes.axvline(len(columns) - 1.5, color="#C4C4C4", linewidth=0.8, zorder=1)
        axes.grid(axis="y", color="#E9E9E9", linewidth=0.8, zorder=0)
        axes.set_axisbelow(True)
        axes.set_xticks(np.arange(len(columns)), [literal(name) for name in names])
        axes.set_xlim(-0.55, len(columns) - 0.45)
        axes.set_ylim(0, 1.05 * highest)
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel(label)
        figure.text(
            0.12 / size[0], 1 - 0.12 / size[1], title_of(table), fontsize=12.5, weight="bold", color=INK, va="top"
        )
        figure.legend(
            # Given here: left to itself, matplotlib leaves out names that begin with an underscore.
            shapes,
            [str(bars.get_label()) for bars in shapes],
            loc="upper left",
            bbox_to_anchor=(0.02 / size[0], 1 - 0.4 / size[1]),
            ncols=_LEGEND_COLUMNS,
            frameon=False,
            fontsize=9,
            labelcolor=FAINT,
            handlelength=1.1,
            columnspacing=1.4,
        )
    return figure


def _bars(middles: np.ndarray, heights: np.ndarray, width: float) -> list[np.ndarray]:
    """Corners of each bar of known height, [4, 2]."""
    known = ~np.isnan(heights)
    left, top = middles[known] - width / 2, heights[known]
    bottom = np.zeros_like(top)
    corners = ((left, bottom), (left, top), (left + width, top), (left + width, bottom))
    return list(np.array(corners).transpose(2, 0, 1))
