"""Compute a table's numbers from frames, without rounding and without skipping missing benchmarks.

Frames called `scores`, `ratios` or `shares` are rows x benchmarks. `cells` are those of
`vico_eval.report.stats.measurements`. A row with several runs (seeds) has the mean over its runs.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.scores.by_document import grown, growth
from vico_eval.report.scores.clusters import clusters_of
from vico_eval.report.stats.measurements import Documents


class Difference(NamedTuple):
    """Differences from the baseline with standard errors, rows x benchmarks and `Avg.` over all benchmarks."""

    difference: pd.DataFrame
    standard_error: pd.DataFrame


AVERAGE = "Avg."


def by_row(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """`column` of the cells as rows x benchmarks, both in the order of first appearance; the mean over a row's runs."""
    frame = cells.pivot_table(index="row", columns="benchmark", values=column, aggfunc=_strict_mean, dropna=False)
    return frame.reindex(index=cells["row"].unique(), columns=cells["benchmark"].unique())


def document_values(cells: pd.DataFrame, documents: Mapping[str, Documents]) -> dict[str, pd.DataFrame]:
    """Compute `Measurements.values` from cells and documents."""
    runs = runs_by_cell(cells)
    frames = {}
    all_clusters = clusters_of([own.together for own in documents.values()])
    for (benchmark, own), clusters in zip(documents.items(), all_clusters, strict=True):
        factors = np.ones(len(clusters)) if own.scored is None else growth(own.scored, clusters)
        frames[benchmark] = pd.DataFrame(
            {
                row: np.mean([_values(own, run, factors) for run in numbers], axis=0)
                for (row, name), numbers in runs.items()
                if name == benchmark
            },
            index=clusters,
        )
    return frames


def runs_by_cell(cells: pd.DataFrame) -> dict[tuple[str, str], list[int]]:
    """The run numbers of each row and benchmark run. Filtering the frame for each of hundreds of cells would take
    seconds."""
    runs: dict[tuple[str, str], list[int]] = {}
    for row, benchmark, run in zip(cells["row"], cells["benchmark"], cells["run"], strict=True):
        runs.setdefault((row, benchmark), []).append(int(run))
    return runs


def why_left_out(cells: pd.DataFrame, rows: Sequence[str], benchmarks: Sequence[str]) -> dict[tuple[str, str], str]:
    """Reason that a row's documents can't be compared with another row's, by row and benchmark; empty if they can."""
    known = runs_by_cell(cells)
    failed = runs_by_cell(cells[cells["failed"] > 0])
    reasons = {}
    for key in product(rows, benchmarks):
        unanswered = f"{key[0]} has documents that could not be answered" if key in failed else ""
        reasons[key] = unanswered if key in known else f"{key[0]} was not run"
    return reasons


def relative_retention(scores: pd.DataFrame, baseline: str) -> pd.Series:
    """Each row's mean score as a percentage of the baseline's: the ratio of the means, as in ViCO's tables.

    Args:
        scores: rows x benchmarks, 0-100, MME already divided by 28.
        baseline: the row that counts as 100.

    Returns:
        Percent by row; NaN if any benchmark is missing.

    Raises:
        ReportError: the baseline is unknown; the message lists the rows.
    """
    _check_baseline(scores.index, baseline)
    means = scores.mean(axis="columns", skipna=False)  # a missing benchmark makes the mean unknown, not smaller
    if means[baseline] == 0:
        return pd.Series(np.nan, index=scores.index)  # a percentage of zero is undefined
    return 100 * means / means[baseline]


def compressed_tile_ratio(cells: pd.DataFrame) -> pd.DataFrame:
    """Compressed tiles / tiles over all documents of a benchmark, percent, rows x benchmarks; NaN without accounts."""
    ratio = 100 * cells["compressed_tiles"] / cells["tiles"].replace(0, np.nan)
    return by_row(cells.assign(ratio=ratio), "ratio")


def visual_token_share(cells: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Visual tokens per decoder layer, as a percentage of the baseline's on the same documents.

    Counts of two runs are compared, rather than a run's own counts with and without its method, so that methods with
    fewer tiles are on the same scale as methods with shorter tiles or with tokens dropped between layers.

    Returns:
        Percent, rows x benchmarks; NaN without accounts.
    """
    tokens = by_row(cells, "layer_tokens")
    _check_baseline(tokens.index, baseline)
    return 100 * tokens / tokens.loc[baseline].replace(0, np.nan)


def with_average(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the plain mean over its benchmarks as an extra last column; NaN if any benchmark is missing."""
    return frame.assign(**{AVERAGE: frame.mean(axis="columns", skipna=False)})


def paired_difference(documents: Mapping[str, pd.DataFrame], baseline: str) -> Difference:
    """Each row's mean score minus the baseline's, in points, from paired differences by document.

    A benchmark's standard error is that of the mean difference, clustered by documents that share an image or are
    scored together. The average weights benchmarks equally. If they share no images, its standard error is the root of
    the summed squares over the number of benchmarks; otherwise it includes the covariance from common clusters. A row
    with several runs enters with the mean over runs of each document's values, so the error reflects the choice of
    documents, not of seeds.

    Args:
        documents: `Measurements.values`.
        baseline: one of its rows.

    Returns:
        Rows x benchmarks and `Avg.`, points; NaN without scores by document, and for the standard error of a single
        document.
    """
    return _paired(documents, baseline, slopes=None)


def retention_standard_error(documents: Mapping[str, pd.DataFrame], scores: pd.DataFrame, baseline: str) -> pd.Series:
    """Standard error of the relative retention over the choice of documents, percent by row.

    Retention is r = S / B, with mean scores S and B on the same documents, so its error is that of the mean of s - r b,
    divided by B (the delta method for a ratio estimated from pairs).
    """
    retention = relative_retention(scores, baseline) / 100
    residual = _paired(documents, baseline, slopes=retention)
    base = scores.loc[baseline].mean(skipna=False)
    return 100 * residual.standard_error[AVERAGE].reindex(scores.index) / base


def score_spread(cells: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Sample standard deviation of a benchmark's score over a row's runs, points, by row and benchmark.

    Cells with a single run are left out; NaN if a run has no score.
    """
    spreads: dict[str, dict[str, float]] = {}
    for (row, benchmark), scores in cells.groupby(["row", "benchmark"], sort=False)["score"]:
        if len(scores) > 1:
            spreads.setdefault(row, {})[benchmark] = _spread(scores)
    return spreads


def run_spread(cells: pd.DataFrame, baseline: str) -> pd.Series:
    """Sample standard deviation of relative retention over a row's runs, percent by row; NaN for a single run.

    Each run is relative to the baseline's mean over its runs.
    """
    _check_baseline(pd.Index(cells["row"].unique()), baseline)
    base = by_row(cells, "score").loc[baseline].mean(skipna=False)
    runs = cells.pivot_table(index=["row", "run"], columns="benchmark", values="score", dropna=False)
    runs = runs.loc[sorted(set(zip(cells["row"], cells["run"], strict=True)))]
    retention = 100 * runs.mean(axis="columns", skipna=False) / base
    return retention.groupby(level="row").agg(_spread).reindex(cells["row"].unique())


class HasBoth(Protocol):
    """A point that a Pareto front compares, in percent of the baseline."""

    @property
    def saved(self) -> float:
        """Visual tokens saved."""

    @property
    def retention(self) -> float:
        """Score retained."""


Compared = TypeVar("Compared", bound=HasBoth)


def pareto_front(points: Sequence[Compared]) -> list[Compared]:
    """The points that no other point dominates (as good in both numbers, better in one), by ascending saving."""
    front: list[Compared] = []
    # In descending order of saving, a point is on the front if it retains more than every point before it.
    for point in sorted(points, key=lambda point: (-point.saved, -point.retention)):
        if not front or point.retention > front[-1].retention:
            front.append(point)
    return front[::-1]


def _paired(documents: Mapping[str, pd.DataFrame], baseline: str, slopes: pd.Series | None) -> Difference:
    """Mean and standard error over documents of value - slope x the baseline's value, with slope 1 by default."""
    rows = pd.Index(dict.fromkeys(row for values in documents.values() for row in values))
    _check_baseline(rows, baseline)
    factors = pd.Series(1.0, index=rows) if slopes is None else slopes.reindex(rows)
    differences, errors, shares = {}, {}, []
    for benchmark, values in documents.items():
        own = values.reindex(columns=rows)
        own = own - np.outer(own[baseline], factors)
        differences[benchmark] = own.mean(skipna=False)
        by_cluster = _error_by_cluster(own)
        errors[benchmark] = _root_of_squares(by_cluster)
        shares.append(by_cluster)
    summed = pd.concat(shares).groupby(level=0).sum(min_count=1) / len(documents)
    # If the error of one benchmark is unknown, so is that of the average.
    unknown = pd.DataFrame(errors).isna().any(axis="columns")
    total = _root_of_squares(summed).mask(unknown)
    return Difference(with_average(pd.DataFrame(differences)), pd.DataFrame(errors).assign(**{AVERAGE: total}))


def standard_error(values: pd.DataFrame) -> pd.Series:
    """Standard errors of the columns' means, clustered by index; NaN for a single cluster."""
    return _root_of_squares(_error_by_cluster(values))


def _error_by_cluster(values: pd.DataFrame) -> pd.DataFrame:
    """Contribution of each cluster to the errors of the columns' means, [clusters, columns]. NaN for a single cluster,
    whose error is unknown, not 0."""
    residuals = values - values.mean(skipna=False)
    sums = residuals if values.index.is_unique else residuals.groupby(level=0).sum(min_count=1)
    if len(sums) == 1:
        return pd.DataFrame(np.nan, index=sums.index, columns=values.columns)
    return sums * math.sqrt(len(sums) / (len(sums) - 1)) / len(values)


def _root_of_squares(parts: pd.DataFrame) -> pd.Series:
    return np.sqrt((parts**2).sum(skipna=False))


def _values(documents: Documents, run: int, factors: np.ndarray) -> np.ndarray:
    """[documents], a run's values, scaled by `factors`."""
    scored = documents.runs[run].scored
    return np.full(documents.number, np.nan) if scored is None else grown(scored.values, factors)


def _strict_mean(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def _spread(values: pd.Series) -> float:
    return float(values.std(ddof=1, skipna=False))


def _check_baseline(rows: pd.Index, baseline: str) -> None:
    if baseline not in rows:
        raise ReportError(f"There is no row `{baseline}` to compare with; the rows are {', '.join(map(str, rows))}.")
