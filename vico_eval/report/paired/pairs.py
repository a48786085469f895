"""Comparisons between rows: paired differences in points, with intervals and tests corrected over the requested
pairs."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.paired.draws import Draws, skew_shift
from vico_eval.report.paired.equality import equality_test, holm
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.stats.uncertainty import LEVEL, counts_of, left_out_of, quantile

ALL = "all"
"""Requests every pair of rows."""

COLUMNS = (
    *("row", "against", "benchmark", "documents", "pictures", "difference", "low", "high"),
    *("test", "p", "p_holm", "too_few", "left_out"),
)


def pairs_of(rows: Sequence[str], against: Sequence[str]) -> list[tuple[str, str]]:
    """The requested pairs of rows, each once: all rows against those named, or `all` for every pair.

    Raises:
        ReportError: a name is not a row's.
    """
    if ALL in against and ALL not in rows:
        return [(second, first) for first, second in combinations(rows, 2)]
    if unknown := [row for row in against if row not in rows]:
        raise ReportError(
            f"There is no row `{unknown[0]}` to compare with. Name rows by their titles, one of {', '.join(rows)}, or "
            f"`{ALL}` for every pair."
        )
    asked = [(row, other) for other in dict.fromkeys(against) for row in rows if row != other]
    return [pair for place, pair in enumerate(asked) if pair[::-1] not in asked[:place]]


def compare_pairs(draws: Draws, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Each pair's difference by benchmark, and for `Avg.` that of the mean scores over the compared benchmarks.

    Args:
        draws: the rows' bootstrap draws.
        pairs: titles of the row and of the row it is compared with.

    Returns:
        One line per pair and benchmark, with the columns `COLUMNS`: documents, pictures and too_few (as in
        `vico_eval.report.stats.uncertainty.compare_with_baseline`), difference (the row's score minus the other's, in
        points), low and high (95% interval), test and p (two-sided, of no difference; for `Avg.` from the interval,
        which excludes 0 if p < .05), p_holm (after Holm's correction: averages over the pairs' averages, benchmarks
        over all tests of single benchmarks), and left_out (reason for a missing number; for `Avg.` the benchmarks left
        out).
    """
    lines: list[dict[str, object]] = []
    for row, against in pairs:
        own, other = draws.place(row), draws.place(against)
        compared = draws.compared(own, other)
        titles = {"row": row, "against": against}
        for place, column in enumerate(draws.columns):
            line: dict[str, object] = {**titles, "benchmark": column.benchmark, "left_out": column.why_not(own, other)}
            if place in compared:
                line |= counts_of([column]) | difference_of(draws, own, other, [place])._asdict()
                line["test"], line["p"] = equality_test(column, own, other)
            lines.append(line)
        total: dict[str, object] = {**titles, "benchmark": AVERAGE, "left_out": left_out_of(draws, own, other)}
        if compared:
            total |= counts_of([draws.columns[place] for place in compared])
            total |= {"test": "interval", **difference_of(draws, own, other, compared)._asdict()}
        lines.append(total)
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    p, is_average = frame["p"].astype(float), frame["benchmark"] == AVERAGE
    return frame.assign(p_holm=holm(p.where(is_average)).fillna(holm(p.mask(is_average))))


class Difference(NamedTuple):
    """Difference between two rows over some columns, in points."""

    difference: float
    low: float
    high: float
    """Ends of the 95% interval."""

    p: float
    """Two-sided p-value of no difference, from the interval, which excludes 0 if p < .05."""


def difference_of(draws: Draws, own: int, other: int, places: Sequence[int]) -> Difference:
    """Difference between two rows, given by index, averaged over the columns at `places`."""
    pair = draws.pair(own, other, places)
    drawn = pair.own_draws - pair.other_draws + skew_shift([draws.columns[place] for place in places], own, other, 1.0)
    difference, unseen = pair.own - pair.other, pair.unseen * draws.whole_change
    low = max(-100.0, quantile(drawn - unseen, LEVEL / 2))
    high = min(100.0, quantile(drawn + unseen, 1 - LEVEL / 2))
    return Difference(difference, low, high, _p_from(difference, low, high))


def _p_from(difference: float, low: float, high: float) -> float:
    """p-value of a normal variable whose interval has the same end towards 0. Counting draws would be too coarse for
    Holm's correction over many pairs."""
    # Imported here because reading published tables needs no tests.
    from scipy.special import ndtr, ndtri

    half = difference - low if difference > 0 else high - difference
    if half <= 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * ndtr(ndtri(LEVEL / 2) * abs(difference) / half))
