"""Uncertainty of a row's relative retention: intervals, tests and a verdict, from documents paired with the baseline's.

Intervals and one-sided tests use the same bootstrap draws (`vico_eval.report.paired.draws`), which keep documents
together that share an image or are scored together, also across benchmarks. Documents' values
(`vico_eval.report.scores.by_document`) are resampled, so F1 and means over pairs or categories are covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.paired.columns import Column
from vico_eval.report.paired.draws import RESAMPLES, Draws, Pair, skew_shift
from vico_eval.report.paired.equality import equality_test, holm
from vico_eval.report.stats.retention import AVERAGE

LEVEL = 0.05
"""One minus the coverage of intervals."""

FEW = 20
"""Minimum number of clusters for reliable intervals of a benchmark."""

_POWER = 0.8

COLUMNS = (
    *("row", "benchmark", "documents", "pictures", "retention", "standard_error", "low", "high"),
    *("p_at_least", "p_less", "p_holm", "verdict", "detectable_loss", "test", "p_equal", "p_equal_holm"),
    *("too_few", "left_out"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """The hypothesis that a row's retention is tested for."""

    margin: float = 99.0
    """Retention to test for, in percent of the baseline."""

    alpha: float = 0.05
    """Level of every test, after Holm's correction."""

    def __post_init__(self) -> None:
        if not 1 <= self.margin <= 100:
            raise ReportError(f"Got a margin of {self.margin:g}; expected a percentage of the baseline from 1 to 100.")
        if not 0 < self.alpha < 0.5:
            raise ReportError(
                f"Got a level of {self.alpha:g}; expected a probability above 0 and below 0.5, such as 0.05."
            )


def compare_with_baseline(draws: Draws, baseline: str, criterion: Criterion | None = None) -> pd.DataFrame:
    """Each row's retention with its interval and tests, by benchmark and for `Avg.` over the compared benchmarks.

    Args:
        draws: the bootstrap draws of all rows, including the baseline.
        baseline: the row that counts as 100.
        criterion: margin and level of the verdicts.

    Returns:
        One line per row other than the baseline and benchmark, with the columns `COLUMNS`: documents (their number),
        pictures (number of clusters of documents that share an image or are scored together; NaN if runs don't record
        shared images), retention (percent), standard_error, low and high (95% interval), p_at_least (of the hypothesis
        "less than the margin"; small if the row retains at least that), p_less (of "at least the margin"), p_holm
        (`Avg.` only: the smaller of both, after Holm's correction over rows), verdict and detectable_loss (`Avg.` only:
        the result of the tests as text, and the loss, in percent of the baseline's score, at which "less than the
        margin" would be found with 80% power), test, p_equal and p_equal_holm (single benchmarks only: two-sided test
        of no difference from the baseline; corrected over all of these tests), too_few (benchmarks with fewer than
        `FEW` clusters) and left_out (reason for missing numbers; for `Avg.` the benchmarks left out).
    """
    criterion = criterion or Criterion()
    others = [row for row in draws.rows if row != baseline]
    base = draws.place(baseline)
    # The level of Holm's first step, which is the strictest.
    level = criterion.alpha / max(1, len(others))
    lines: list[dict[str, object]] = []
    for row in others:
        own = draws.place(row)
        compared = draws.compared(own, base)
        for place, column in enumerate(draws.columns):
            line: dict[str, object] = {"row": row, "benchmark": column.benchmark}
            line["left_out"] = column.why_not(own, base)
            if place in compared:
                line |= counts_of([column]) | retention_of(draws, own, base, [place], criterion.margin)
                line |= equality_test(column, own, base)._asdict()
            lines.append(line)
        total: dict[str, object] = {"row": row, "benchmark": AVERAGE, "left_out": left_out_of(draws, own, base)}
        if compared:
            total |= counts_of([draws.columns[place] for place in compared])
            total |= retention_of(draws, own, base, compared, criterion.margin, level)
        lines.append(total)
    return _with_verdicts(_with_holm(pd.DataFrame(lines, columns=list(COLUMNS))), criterion)


class DrawnRetention(NamedTuple):
    """Bootstrap draws of retention, percent, [resamples, rows], for the two ends of an interval."""

    low: np.ndarray
    high: np.ndarray


def drawn_retention(draws: Draws, rows: Sequence[str], baseline: str) -> DrawnRetention:
    """Draws of the rows' retention over all benchmarks; NaN for rows that can't be compared in all of them."""
    base, places = draws.place(baseline), range(len(draws.columns))
    ends = []
    for own in map(draws.place, rows):
        unknown = np.full(RESAMPLES, np.nan)
        found = (unknown, unknown)
        if len(draws.compared(own, base)) == len(places) and (pair := draws.pair(own, base, places)).other > 0:
            found = _drawn_ends(draws, own, base, places, pair)
        ends.append(found)
    low, high = (np.column_stack(end) for end in zip(*ends, strict=True))
    return DrawnRetention(low, high)


def counts_of(columns: Sequence[Column]) -> dict[str, object]:
    """The entries documents, pictures and too_few of a line over `columns`."""
    clusters = np.unique(np.concatenate([column.clusters for column in columns]))
    known = all(column.knows_pictures for column in columns)
    return {
        "documents": float(sum(len(column.groups) for column in columns)),
        "pictures": float(len(clusters)) if known else np.nan,
        "too_few": ", ".join(column.benchmark for column in columns if column.num_clusters < FEW),
    }


def left_out_of(draws: Draws, own: int, other: int) -> str:
    """The columns in which two rows, given by index, can't be compared, with the reasons."""
    reasons = {column.benchmark: column.why_not(own, other) for column in draws.columns}
    return "; ".join(f"{benchmark} ({reason})" for benchmark, reason in reasons.items() if reason)


def quantile(draws: np.ndarray, share: float) -> float:
    """The smallest draw that is at least as large as this share of all draws."""
    return float(np.quantile(draws, share, method="inverted_cdf"))


def retention_of(
    draws: Draws, own: int, base: int, places: Sequence[int], margin: float, level: float | None = None
) -> dict[str, object]:
    """Retention averaged over the columns at `places`; `level` is the test level for detectable_loss, which is left out
    without it."""
    pair = draws.pair(own, base, places)
    if pair.other == 0:
        return {"left_out": "the baseline scores 0"}  # a percentage of zero is undefined
    retention = 100 * pair.own / pair.other
    low, high = _drawn_ends(draws, own, base, places, pair)
    line: dict[str, object] = {
        "retention": retention,
        "standard_error": float(np.nanstd(_percent(pair.own_spread, pair.other_spread, otherwise=np.nan))),
        "low": max(0.0, quantile(low, LEVEL / 2)),
        "high": quantile(high, 1 - LEVEL / 2),
        "p_at_least": (1 + int((low < margin).sum())) / (1 + len(low)),
        "p_less": (1 + int((high >= margin).sum())) / (1 + len(low)),
    }
    if level is not None:
        # "Less" is found if the upper end is below the margin. With this power, the estimate exceeds the true retention
        # by at most its present distance to its lower draws.
        needed = quantile(high, 1 - level) - quantile(low, 1 - _POWER)
        line["detectable_loss"] = 100 - margin + needed
    return line


def _drawn_ends(draws: Draws, own: int, base: int, places: Sequence[int], pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """[resamples] each, percent: draws of retention for the lower and for the upper end of an interval."""
    shift = skew_shift([draws.columns[place] for place in places], own, base, pair.own / pair.other)
    unseen = pair.unseen * draws.half_change
    low = _percent(pair.own_draws + shift - unseen, pair.other_draws, otherwise=-np.inf)
    high = _percent(pair.own_draws + shift + unseen, pair.other_draws, otherwise=np.inf)
    return low, high


def _with_holm(frame: pd.DataFrame) -> pd.DataFrame:
    """Add p_holm over the rows' averages, and p_equal_holm over all tests of single benchmarks."""
    smaller = frame[["p_at_least", "p_less"]].min(axis="columns")
    return frame.assign(
        p_holm=holm(smaller.where(frame["benchmark"] == AVERAGE).astype(float)),
        p_equal_holm=holm(frame["p_equal"].astype(float)),
    )


def _with_verdicts(frame: pd.DataFrame, criterion: Criterion) -> pd.DataFrame:
    return frame.assign(verdict=[_verdict(line, criterion) for _, line in frame.iterrows()])


def _verdict(line: pd.Series, criterion: Criterion) -> str:
    """The verdict on a row's retention from its `Avg.` line, as text; empty without retention."""
    if np.isnan(line["p_holm"]):
        return ""
    if line["p_holm"] < criterion.alpha:
        side = "at least" if line["p_at_least"] < line["p_less"] else "less than"
        return f"retains {side} {criterion.margin:g}% (p < {f'{criterion.alpha:g}'.removeprefix('0')})"
    if line["detectable_loss"] < 100:
        return f"too few documents to tell (a loss of {line['detectable_loss']:.1f}% is detectable with 80% power)"
    return "too few documents to tell (no loss is detectable with 80% power)"


def _percent(values: np.ndarray, base: np.ndarray, *, otherwise: float) -> np.ndarray:
    """100 x values / base; `otherwise` where the base is not positive."""
    percent = np.full(len(base), otherwise)
    np.divide(100 * values, base, out=percent, where=base > 0)
    return percent
