"""How sure a row's relative retention is: intervals, tests and a verdict, from documents paired with the baseline's.

Interval: percentile bootstrap over documents, all rows and the baseline on the same draws; documents of a cluster
(`vico_eval.report.scores.clusters`) are drawn together. Retention is a ratio whose denominator stays far from 0, so it
is all but unbiased and the percentiles need no correction such as BCa's, whose acceleration has no agreed form over
several benchmarks. What is drawn are documents' values (`vico_eval.report.scores.by_document`), so F1 and means over
pairs or categories take part too.

Differs: a plain bootstrap knows only of changes that were seen, so rows that agree on every document would have no
interval at all. Here the lower end counts one more group of documents lost than were drawn, and the upper end one more
gained, each drawn from a Poisson distribution of mean 1, in the benchmark where it weighs most. For counts this is the
exact (Clopper-Pearson) limit, since k seen are compatible with the quantiles of Gamma(k + 1); with none of n changed
it is the rule of three, 3 / n.

What it leaves out: the choice of seeds, and pictures that two benchmarks share.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd

from vico_eval.report.scores.by_document import DocumentScores
from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import AVERAGE, why_left_out

THRESHOLD = 99.0
"""Percent of the baseline that a row is said to retain, or not."""

LEVEL = 0.05
RESAMPLES = 4000

COLUMNS = (
    *("row", "benchmark", "documents", "pictures", "retention", "standard_error", "low", "high"),
    *("p_at_least", "p_less", "p_holm", "documents_needed", "test", "p_equal", "left_out"),
)

# Draws that are held at once: few, for threads would take longer to share a product of 1,000 documents than to make it.
_CHUNK = 25


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One benchmark's paired values."""

    benchmark: str
    values: np.ndarray
    """[documents, rows], mean over a row's runs; the baseline first. NaN where a row can't be compared."""

    groups: np.ndarray
    """[documents], from 0: the documents' clusters."""

    knows_pictures: bool = False
    group_weight: float = 100.0
    """Points of the score that ride on one group: a part's points over its groups, for the part with the fewest."""

    @property
    def num_groups(self) -> int:
        return int(self.groups.max()) + 1

    @property
    def is_compared(self) -> np.ndarray:
        """[rows], bool."""
        known: np.ndarray = ~np.isnan(self.values).any(axis=0)
        # One group has no spread, and says nothing of others.
        return known & known[0] if self.num_groups > 1 else np.zeros_like(known)


def compare_with_baseline(
    measured: Measurements, rows: Sequence[str], benchmarks: Sequence[str], baseline: str
) -> pd.DataFrame:
    """Each row's retention with its interval and tests, by benchmark and for `Avg.` over the benchmarks compared.

    Args:
        measured: runs of the rows on the same documents.
        rows: titles; the baseline among them.
        benchmarks: titles.
        baseline: the row that counts as 100.

    Returns:
        A line a row other than the baseline and benchmark, with the columns `COLUMNS`:
        documents (their number), pictures (clusters of documents that share one or are scored together; NaN where runs
        don't say which share one),
        retention (percent), standard_error, low and high (95% interval),
        p_at_least (of "less than 99%": small where the row retains at least that), p_less (of "at least 99%"),
        p_holm (`Avg.` only: the smaller of both, after Holm's correction over rows),
        documents_needed (`Avg.` only: about how many would decide, were the retention to stay what it is),
        test and p_equal (one benchmark only: two-sided, of no difference from the baseline), and
        left_out (why there is no number; for `Avg.` the benchmarks left out).
    """
    titles = [baseline, *(row for row in rows if row != baseline)]
    columns = _columns(measured, titles, benchmarks)
    left_out_of = why_left_out(measured.cells, titles, benchmarks)
    draws = [_draw_means(column) for column in columns]
    level = LEVEL / max(1, len(titles) - 1)
    lines = []
    for place, row in enumerate(titles[1:], start=1):
        compared = [number for number, column in enumerate(columns) if column.is_compared[place]]
        reasons = [
            "" if column.is_compared[place] else _reason(left_out_of, baseline, row, column, place)
            for column in columns
        ]
        for number, column in enumerate(columns):
            line: dict[str, object] = {"row": row, "benchmark": column.benchmark, "left_out": reasons[number]}
            if number in compared:
                line |= _retention([column], [draws[number]], place, level) | _test(column, place)
            lines.append(line | {"documents_needed": np.nan})
        left_out = [f"{benchmark} ({reason})" for benchmark, reason in zip(benchmarks, reasons, strict=True) if reason]
        line = {"row": row, "benchmark": AVERAGE, "left_out": "; ".join(left_out)}
        if compared:
            line |= _retention([columns[one] for one in compared], [draws[one] for one in compared], place, level)
        lines.append(line)
    return _with_holm(pd.DataFrame(lines, columns=list(COLUMNS)))


def difference_from_baseline(
    measured: Measurements, row: str, benchmarks: Sequence[str], baseline: str
) -> pd.DataFrame:
    """One row's score less the baseline's, in points, with its 95% interval from the draws that retention takes.

    Returns:
        A line a benchmark and, for the mean over those compared, `Avg.`, with the columns benchmark, difference, low,
        high and left_out (why there is no number; for `Avg.` the benchmarks left out).
    """
    columns = _columns(measured, [baseline, row], benchmarks)
    left_out_of = why_left_out(measured.cells, [baseline, row], benchmarks)
    lines: list[dict[str, object]] = []
    for column in columns:
        line: dict[str, object] = {"benchmark": column.benchmark, "left_out": ""}
        if column.is_compared[1]:
            line |= _difference([column])
        else:
            line["left_out"] = _reason(left_out_of, baseline, row, column, 1)
        lines.append(line)
    compared = [column for column in columns if column.is_compared[1]]
    left_out = [f"{line['benchmark']} ({line['left_out']})" for line in lines if line["left_out"]]
    total = {"benchmark": AVERAGE, "left_out": "; ".join(left_out)}
    lines.append({**total, **(_difference(compared) if compared else {})})
    return pd.DataFrame(lines, columns=["benchmark", "difference", "low", "high", "left_out"])


class DrawnRetention(NamedTuple):
    """Retention over documents drawn anew, percent, [resamples, rows]: the draws of an interval's two ends."""

    low: np.ndarray
    high: np.ndarray


def draw_retention(
    measured: Measurements, rows: Sequence[str], benchmarks: Sequence[str], baseline: str
) -> DrawnRetention:
    """Of rows over all benchmarks, on the same draws; NaN of a row that can't be compared in each of them."""
    titles = [baseline, *rows]
    columns = _columns(measured, titles, benchmarks)
    drawn = np.mean([_draw_means(column) for column in columns], axis=0)
    drawn[:, ~np.all([column.is_compared for column in columns], axis=0)] = np.nan
    unseen = _unseen(columns)[:, None]
    base = np.where(drawn[:, :1] > 0, drawn[:, :1], np.nan)
    return DrawnRetention(100 * (drawn[:, 1:] - unseen) / base, 100 * (drawn[:, 1:] + unseen) / base)


def verdict(line: pd.Series) -> str:
    """What an `Avg.` line says of the row's retention, in plain words."""
    if line["p_holm"] < LEVEL:
        side = "at least" if line["p_at_least"] < line["p_less"] else "less than"
        return f"retains {side} {THRESHOLD:.0f}% (p < .05)"
    if not np.isfinite(line["documents_needed"]):
        return "can't tell at this size"
    needed = float(f"{line['documents_needed']:.1e}")
    return f"can't tell at this size: about {needed:,.0f} documents would be needed"


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values after Holm's correction for as many tests as there are: [tests], in their order (Holm 1979)."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def _columns(measured: Measurements, titles: Sequence[str], benchmarks: Sequence[str]) -> list[_Column]:
    return [
        _column(benchmark, measured.documents[benchmark], measured.values[benchmark].reindex(columns=titles))
        if benchmark in measured.values
        else _Column(benchmark, np.full((1, len(titles)), np.nan), np.zeros(1, dtype=np.int64))
        for benchmark in benchmarks
    ]


def _column(benchmark: str, documents: Documents, values: pd.DataFrame) -> _Column:
    groups = values.index.to_numpy()
    weight = 100.0 if documents.scored is None else _group_weight(groups, documents.scored)
    return _Column(benchmark, values.to_numpy(dtype=float), groups, documents.knows_pictures, weight)


def _group_weight(groups: np.ndarray, scored: DocumentScores) -> float:
    own = [len(np.unique(groups[scored.strata == part])) for part in range(scored.strata.max() + 1)]
    # A group may be in several parts, as a picture in all three of POPE.
    return scored.points * max(1 / min(own), len(own) / len(np.unique(groups[scored.strata >= 0])))


def _draw_means(column: _Column) -> np.ndarray:
    """[resamples, rows]: each row's mean value over documents drawn anew, group by group; 0 where it has none."""
    values = np.nan_to_num(column.values)
    count = column.num_groups
    # [groups, rows + 1]: summed values, and the number of documents.
    totals = np.stack([np.bincount(column.groups, weights=row) for row in (*values.T, np.ones(len(values)))], axis=1)
    # A benchmark's draws don't depend on which others the table has.
    generator = np.random.default_rng(crc32(column.benchmark.encode()))
    means = []
    for start in range(0, RESAMPLES, _CHUNK):
        size = min(_CHUNK, RESAMPLES - start)
        drawn = generator.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        sums = weights @ totals
        means.append(sums[:, :-1] / sums[:, -1:])
    return np.concatenate(means)


def _retention(columns: Sequence[_Column], draws: Sequence[np.ndarray], place: int, level: float) -> dict[str, object]:
    """Retention over the mean of the columns, of the row at `place`; `level` is that of documents_needed."""
    observed, base = (float(np.mean([column.values[:, one].mean() for column in columns])) for one in (place, 0))
    documents = sum(len(column.values) for column in columns)
    known = all(column.knows_pictures for column in columns)
    counts: dict[str, object] = {
        "documents": float(documents),
        "pictures": float(sum(column.num_groups for column in columns)) if known else np.nan,
    }
    if base == 0:
        return {**counts, "left_out": "the baseline scores 0"}  # no percentage of zero
    drawn, drawn_base = (np.mean([draw[:, one] for draw in draws], axis=0) for one in (place, 0))
    unseen = _unseen(columns)
    retention = 100 * observed / base
    low = _percent(drawn - unseen, drawn_base, otherwise=-np.inf)
    high = _percent(drawn + unseen, drawn_base, otherwise=np.inf)
    error = float(np.nanstd(_percent(drawn, drawn_base, otherwise=np.nan)))
    return counts | {
        "retention": retention,
        "standard_error": error,
        "low": max(0.0, _quantile(low, LEVEL / 2)),
        "high": _quantile(high, 1 - LEVEL / 2),
        "p_at_least": (1 + int((low < THRESHOLD).sum())) / (1 + RESAMPLES),
        "p_less": (1 + int((high >= THRESHOLD).sum())) / (1 + RESAMPLES),
        "documents_needed": _documents_needed(documents, retention, error, low, high, level),
    }


def _difference(columns: Sequence[_Column]) -> dict[str, object]:
    """The second row's mean score over the columns less the first one's, and the ends of its interval."""
    drawn = np.mean([draws[:, 1] - draws[:, 0] for draws in map(_draw_means, columns)], axis=0)
    unseen = _unseen(columns)
    return {
        "difference": float(np.mean([(column.values[:, 1] - column.values[:, 0]).mean() for column in columns])),
        "low": max(-100.0, _quantile(drawn - unseen, LEVEL / 2)),
        "high": min(100.0, _quantile(drawn + unseen, 1 - LEVEL / 2)),
    }


def _unseen(columns: Sequence[_Column]) -> np.ndarray:
    """[resamples], points of the mean: groups of documents that changed unseen, where one weighs most."""
    unit = max(column.group_weight for column in columns) / len(columns)
    return unit * np.random.default_rng(0).poisson(1, RESAMPLES)


def _documents_needed(
    documents: int, retention: float, error: float, low: np.ndarray, high: np.ndarray, level: float
) -> float:
    """How many documents of the same kind would put the interval's end at the threshold."""
    distance = abs(retention - THRESHOLD)
    if distance == 0:
        return np.inf
    # Only here and below: what reads published tables tests nothing. scipy.stats would take a second more to load.
    from scipy.special import ndtri

    end = _quantile(low, level) if retention > THRESHOLD else _quantile(high, 1 - level)
    # The seen spread shrinks with the root of their number, the unseen group's share with the number itself.
    seen = (float(ndtri(level)) * error / distance) ** 2
    return documents * max(seen, abs(retention - end) / distance)


def _test(column: _Column, place: int) -> dict[str, object]:
    """Two-sided test of no difference: McNemar's on right and wrong answers, else a paired t on groups' sums."""
    from scipy.special import bdtr, stdtr

    base, own = column.values[:, 0], column.values[:, place]
    is_alone = column.num_groups == len(base)
    if is_alone and np.isin(column.values[:, [0, place]], (0, 100)).all():
        lost, gained = int((own < base).sum()), int((own > base).sum())
        p_equal = min(1.0, 2 * float(bdtr(min(lost, gained), lost + gained, 0.5)))
        return {"test": "McNemar, exact", "p_equal": p_equal}
    differences = np.bincount(column.groups, weights=own - base)
    if np.ptp(differences) == 0:  # t has no value without spread
        p_equal = 1.0 if differences[0] == 0 else np.nan
    else:
        error = differences.std(ddof=1) / math.sqrt(len(differences))
        p_equal = 2 * stdtr(len(differences) - 1, -abs(differences.mean()) / error)
    over = "" if is_alone else " over pictures" if column.knows_pictures else " over documents scored together"
    return {"test": f"paired t{over}", "p_equal": float(p_equal)}


def _reason(reasons: Mapping[tuple[str, str], str], baseline: str, row: str, column: _Column, place: int) -> str:
    if found := reasons[row, column.benchmark] or reasons[baseline, column.benchmark]:
        return found
    unknown = np.isnan(column.values[:, [0, place]])
    if unknown.all(axis=0).any():
        return "no score by document"
    return "a part of the score rests on one document or picture" if unknown.any() else "only one document or picture"


def _with_holm(frame: pd.DataFrame) -> pd.DataFrame:
    tested = frame.index[(frame["benchmark"] == AVERAGE) & frame["p_less"].notna()]
    smaller = frame.loc[tested, ["p_at_least", "p_less"]].min(axis="columns").to_numpy(dtype=float)
    return frame.assign(p_holm=pd.Series(holm(smaller), index=tested, dtype=float).reindex(frame.index))


def _percent(values: np.ndarray, base: np.ndarray, *, otherwise: float) -> np.ndarray:
    """100 x values / base; `otherwise` where a draw's base is 0."""
    percent = np.full(len(base), otherwise)
    np.divide(100 * values, base, out=percent, where=base > 0)
    return percent


def _quantile(draws: np.ndarray, share: float) -> float:
    return float(np.quantile(draws, share, method="inverted_cdf"))
