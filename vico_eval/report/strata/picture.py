"""Figure of the loss from compression against router score, with one line and 95% intervals per router."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import betaincinv

from vico_eval.report.figures.labels import fitting
from vico_eval.report.figures.style import COLOURS, GRID, MARKERS, Sheet
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.stats.uncertainty import LEVEL

_LOOK: Any = {"markersize": 4, "linewidth": 1.3, "capsize": 2, "elinewidth": 0.9}


def draw_calibration(calibration: pd.DataFrame, sheet: Sheet | None = None) -> Figure:
    """Plot documents lost when every tile is compressed over the mean p(compress) of their tiles, one point per bin.

    A well-calibrated router has a falling line. Intervals are Clopper and Pearson's, which treat documents as
    independent.

    Args:
        calibration: result of `vico_eval.report.strata.calibration.router_calibration`.
        sheet: page format; full page width by default.
    """
    bins = calibration[(calibration["benchmark"] == AVERAGE) & calibration["low"].notna()]
    areas = calibration[(calibration["benchmark"] == AVERAGE) & calibration["low"].isna()].set_index("row")["auc"]
    sheet = sheet or Sheet()
    rows = list(dict.fromkeys(bins["row"]))
    with mpl.rc_context(sheet.style):
        height = 2.2 if sheet.is_narrow else 2.9
        figure = Figure(figsize=(sheet.width, height + 0.17 * len(rows)), dpi=300, layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            own = bins[bins["row"] == row].sort_values("p_compress")
            axes.errorbar(
                own["p_compress"],
                own["lost"],
                yerr=_errors(own),
                color=COLOURS[place % len(COLOURS)],
                marker=MARKERS[place % len(MARKERS)],
                label=f"{fitting(figure, row, sheet.width - 1.6)} (AUC {areas[row]:.2f})",
                **_LOOK,
            )
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=GRID, linewidth=0.6, zorder=0)
        axes.tick_params(length=3)
        axes.set_xlabel("Mean p(compress) of a document's tiles")
        compressed = fitting(figure, str(bins["compressed"].iloc[0]), 1.5)
        axes.set_ylabel(f"Lost by {compressed}, %")
        figure.legend(loc="outside upper left", frameon=False, ncols=1)
    return figure


def _errors(own: pd.DataFrame) -> np.ndarray:
    """[2, bins]: lengths of the interval below and above each share, percent."""
    documents, share = own["documents"].to_numpy(), own["lost"].to_numpy() / 100
    lost = np.round(documents * share)
    # Quantiles of the beta distribution from scipy.special, since scipy.stats would take a second longer to load.
    low = np.where(lost > 0, betaincinv(np.maximum(lost, 1), documents - lost + 1, LEVEL / 2), 0)
    high = np.where(lost < documents, betaincinv(lost + 1, np.maximum(documents - lost, 1), 1 - LEVEL / 2), 1)
    return np.asarray(np.clip(100 * np.stack([share - low, high - share]), 0, None))
