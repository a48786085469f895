"""Frames that a report computes in addition to its table, and their CSV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from vico_eval.report.budgets.iso_accuracy import iso_accuracy
from vico_eval.report.paired.best import best_of
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.paired.pairs import compare_pairs
from vico_eval.report.stats.loyalty import loyalty
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.uncertainty import Criterion, compare_with_baseline
from vico_eval.report.strata.by_stratum import by_stratum
from vico_eval.report.strata.calibration import router_calibration
from vico_eval.report.tables.csv_text import frame_to_csv
from vico_eval.report.tables.table import Table

UNCERTAINTY = "uncertainty.csv"
LOYALTY = "loyalty.csv"

TIMES = "time.csv"
"""Written only if a run has times."""

BUDGETS = "budgets.csv"
"""Written only if a method was run at several budgets."""

COSTS = "costs.csv"
"""Written only if a run has cost coefficients or times."""

PAIRS = "pairs.csv"
"""Written only if comparisons between rows were requested."""

STRATA = "strata.csv"
"""Written only if documents have categories, or a row loses some that the baseline gets right."""

ROUTER = "router.csv"
"""Written only if one row has router scores and another compresses every tile."""

OPTIONAL = (TIMES, BUDGETS, COSTS, PAIRS, STRATA, ROUTER)
"""Files that only some reports have."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Frames:
    """A report's frames; None for those that don't apply."""

    uncertainty: pd.DataFrame
    loyalty: pd.DataFrame
    times: pd.DataFrame | None
    budgets: pd.DataFrame | None
    costs: pd.DataFrame | None
    pairs: pd.DataFrame | None
    strata: pd.DataFrame | None
    router: pd.DataFrame | None
    best: Mapping[str, frozenset[str]]
    """Rows to set in bold, by column of the table."""

    def texts(self) -> dict[str, str]:
        """The frames as CSV, by file name."""
        frames = {
            UNCERTAINTY: self.uncertainty,
            LOYALTY: self.loyalty,
            TIMES: self.times,
            BUDGETS: self.budgets,
            COSTS: self.costs,
            PAIRS: self.pairs,
            STRATA: self.strata,
            ROUTER: self.router,
        }
        return {name: frame_to_csv(_counted(frame)) for name, frame in frames.items() if frame is not None}


class Spent(NamedTuple):
    """Times and costs of documents."""

    times: pd.DataFrame | None
    """Result of `vico_eval.report.stats.times.document_times`."""

    costs: pd.DataFrame | None
    """Result of `vico_eval.report.costs.frame.document_costs`."""


def compute_frames(
    table: Table,
    measured: Measurements,
    systems: Mapping[str, str],
    spent: Spent,
    pairs: Sequence[tuple[str, str]],
    criterion: Criterion,
    weights: Mapping[str, str | None],
) -> Frames:
    """Compute all frames of a report.

    Args:
        table: the table of measured scores.
        measured: the measurements behind it.
        systems: each row's system by row title, in row order.
        spent: times and costs, which were computed earlier for a figure.
        pairs: pairs of rows to compare.
        criterion: hypothesis that verdicts test.
        weights: digest of each row's weights by row title.
    """
    rows = list(systems)
    draws = Draws(rows, columns_of(measured, rows, table.columns))
    strata = by_stratum(measured, systems, table.columns, table.baseline)
    return Frames(
        uncertainty=compare_with_baseline(draws, table.baseline, criterion),
        loyalty=loyalty(measured, rows, table.columns, table.baseline),
        times=spent.times,
        budgets=iso_accuracy(table, draws),
        costs=spent.costs,
        pairs=compare_pairs(draws, pairs) if pairs else None,
        strata=None if strata.empty else strata,
        router=router_calibration(measured, weights, rows, table.columns, table.baseline),
        best=best_of(table, draws, criterion.alpha),
    )


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with integer counts."""
    return frame.astype({name: "Int64" for name in ("documents", "pictures") if name in frame})
