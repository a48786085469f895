"""Figure of retention against the visual-token budget, with one line and its 95% band per method."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vico_eval.report.budgets.groups import FULL
from vico_eval.report.budgets.iso_accuracy import MARKS, swept_rows
from vico_eval.report.figures.labels import fitting, spread
from vico_eval.report.figures.style import COLOURS, FAINT, GRID, INK, LINE, MARKERS, RULE, Sheet, named_baseline
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.table import Table

_LOOK: Any = {"markersize": 4, "linewidth": 1.3, "zorder": 3}
_LEADER = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3}


def draw_budgets(table: Table, uncertainty: pd.DataFrame, sheet: Sheet | None = None) -> Figure | None:
    """Plot relative retention over the visual tokens used at each budget; None if no method has several budgets.

    Lines start at the baseline. Rows with a single budget are points. Bands are the intervals in the report's
    uncertainty table.

    Args:
        table: the table of measured runs.
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        sheet: page format; full page width by default.
    """
    methods = swept_rows(table)
    if not methods:
        return None
    known = table.summary[["token_share", "retention"]].dropna()
    swept = {row for rows in methods.values() for row in rows}
    others = [str(row) for row in known.index if row not in swept and row != table.baseline]
    ends = uncertainty[uncertainty["benchmark"] == AVERAGE].set_index("row")[["low", "high"]]
    sheet = sheet or Sheet()
    beside = 1.15 if sheet.is_narrow else 1.6
    with mpl.rc_context(sheet.style):
        height = max(2.2 if sheet.is_narrow else 2.9, LINE * (len(methods) + len(others)) + 0.5)
        figure = Figure(figsize=(sheet.width, height), dpi=300)
        box = (0.45 / sheet.width, 0.38 / height, 1 - (0.45 + beside) / sheet.width, 1 - 0.46 / height)
        axes = figure.add_axes(box)
        for mark in (FULL, *MARKS):
            dashes = (1, 2) if mark < FULL else (5, 4)
            axes.axhline(mark, color=RULE, linewidth=0.7, linestyle=(0, dashes), zorder=1)
        names = []
        for place, (method, rows) in enumerate(methods.items()):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            own = known.loc[rows]
            x, y = [FULL, *own["token_share"]], [FULL, *own["retention"]]
            axes.plot(x, y, color=colour, marker=marker, markevery=slice(1, None), **_LOOK)
            band = ends.reindex(rows)
            if np.isfinite(band).all(axis=None):
                axes.fill_between(
                    x, [FULL, *band["low"]], [FULL, *band["high"]], color=colour, alpha=0.13, linewidth=0, zorder=2
                )
            names.append((method, x[-1], y[-1], colour))
        for row in others:
            x, y = known.loc[row]
            axes.plot([x], [y], color=INK, marker="o", markerfacecolor="white", **_LOOK)
            names.append((row, x, y, INK))
        _frame(axes, known.loc[[*swept, *others]], table.baseline)
        _name(figure, axes, names)
    return figure


def _frame(axes: Axes, known: pd.DataFrame, baseline: str) -> None:
    low, high = known["retention"].min(), max(FULL, known["retention"].max())
    room = max(high - low, 4.0)
    axes.set_xlim(102.0, min(0.9 * known["token_share"].min(), known["token_share"].min() - 2))
    axes.set_ylim(low - 0.06 * room, high + 0.06 * room)
    axes.grid(axis="y", color=GRID, linewidth=0.6, zorder=0)
    axes.tick_params(length=3)
    shown = named_baseline(baseline, 30)
    axes.set_xlabel(f"Visual tokens, % of {shown}")
    axes.set_ylabel(f"Score retained, % of {shown}")


def _name(figure: Figure, axes: Axes, names: Sequence[tuple[str, float, float, str]]) -> None:
    """Write the names to the right of the axes, in the order of the lines' ends, with a thin leader to each end."""
    ordered = sorted(names, key=lambda name: -name[2])
    low, high = axes.get_ylim()
    heights = [(y - low) / (high - low) for _, _, y, _ in ordered]
    width, tall = figure.get_size_inches()
    place = axes.get_position()
    least = LINE / tall / place.height
    for (text, x, y, colour), height in zip(ordered, spread(heights, least, 0.5 * least, 1.0), strict=True):
        axes.annotate(
            fitting(figure, text, width * (1 - place.x0 - 1.04 * place.width) - 0.02),
            (x, y),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            # From the name's left end: by default from its middle, so a steep line would cross other names.
            arrowprops={**_LEADER, "relpos": (0, 0.5)},
        )
