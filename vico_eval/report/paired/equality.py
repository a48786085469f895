"""Two-sided tests of no difference between two rows on one benchmark, and Holm's correction for multiple tests."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from vico_eval.report.paired.columns import Column


class Equality(NamedTuple):
    """A test of no difference."""

    test: str
    p_equal: float
    """p-value; NaN if every document changed by the same amount."""


def equality_test(column: Column, own: int, other: int) -> Equality:
    """Test two rows, given by index: McNemar's exact test for right/wrong scores, else a paired t test on cluster
    sums."""
    # Imported here because reading published tables needs no tests. scipy.stats would take a second longer to load.
    from scipy.special import bdtr, stdtr

    first, second = column.values[:, other], column.values[:, own]
    if column.are_alone and np.isin(column.values[:, [other, own]], (0, 100)).all():
        lost, gained = int((second < first).sum()), int((second > first).sum())
        return Equality("McNemar, exact", min(1.0, 2 * float(bdtr(min(lost, gained), lost + gained, 0.5))))
    over = "" if column.are_alone else " over images" if column.knows_pictures else " over documents scored together"
    differences = column.sums[:, own] - column.sums[:, other]
    if np.ptp(differences) == 0:  # t is undefined without spread
        return Equality(f"paired t{over}", 1.0 if differences[0] == 0 else np.nan)
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return Equality(f"paired t{over}", float(2 * stdtr(len(differences) - 1, -abs(differences.mean()) / error)))


def holm(p_values: pd.Series) -> pd.Series:
    """p-values after Holm's correction for the number of known p-values (Holm 1979); NaN stays NaN."""
    known = p_values.dropna().to_numpy(dtype=float)
    order = np.argsort(known)
    factors = np.arange(len(known), 0, -1)
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * known[order]))
    return pd.Series(adjusted, index=p_values.dropna().index, dtype=float).reindex(p_values.index)
