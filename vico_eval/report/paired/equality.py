"""Two-sided tests of no difference between two rows on one benchmark, and Holm's correction for many tests."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from vico_eval.report.paired.columns import Column


class Equality(NamedTuple):
    """A test of no difference."""

    test: str
    p_equal: float
    """NaN where every document changed by as much."""


def equality_test(column: Column, own: int, other: int) -> Equality:
    """McNemar's exact test on right and wrong answers, else a paired t on clusters' sums, of the rows at two places."""
    # Only here: what reads published tables tests nothing. scipy.stats would take a second more to load.
    from scipy.special import bdtr, stdtr

    first, second = column.values[:, other], column.values[:, own]
    if column.are_alone and np.isin(column.values[:, [other, own]], (0, 100)).all():
        lost, gained = int((second < first).sum()), int((second > first).sum())
        return Equality("McNemar, exact", min(1.0, 2 * float(bdtr(min(lost, gained), lost + gained, 0.5))))
    over = "" if column.are_alone else " over pictures" if column.knows_pictures else " over documents scored together"
    differences = column.sums[:, own] - column.sums[:, other]
    if np.ptp(differences) == 0:  # t has no value without spread
        return Equality(f"paired t{over}", 1.0 if differences[0] == 0 else np.nan)
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return Equality(f"paired t{over}", float(2 * stdtr(len(differences) - 1, -abs(differences.mean()) / error)))


def holm(p_values: pd.Series) -> pd.Series:
    """p-values after Holm's correction for as many tests as are known (Holm 1979); NaN stays."""
    known = p_values.dropna().to_numpy(dtype=float)
    order = np.argsort(known)
    factors = np.arange(len(known), 0, -1)
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * known[order]))
    return pd.Series(adjusted, index=p_values.dropna().index, dtype=float).reindex(p_values.index)
