"""Comparison with the baseline in a table for a paper: intervals next to averages, significance marks next to
scores."""

import pandas as pd

from vico_eval.report.stats.retention import AVERAGE


def intervals(uncertainty: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The 95% interval of each row's retention, percent, by row; the upper end may be infinite.

    Args:
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
    """
    known = uncertainty[(uncertainty["benchmark"] == AVERAGE) & uncertainty["retention"].notna()]
    return {str(row.row): (float(row.low), float(row.high)) for row in known.itertuples()}


def significant(uncertainty: pd.DataFrame, alpha: float) -> dict[str, frozenset[str]]:
    """The benchmarks on which a row differs significantly from the baseline, by row.

    Args:
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        alpha: significance level, applied after the correction over all rows and benchmarks.
    """
    found = uncertainty[uncertainty["p_equal_holm"] < alpha]
    return {str(row): frozenset(own["benchmark"]) for row, own in found.groupby("row")}
