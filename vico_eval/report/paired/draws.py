"""Bootstrap draws of every row's score, the basis of a report's intervals and tests.

A draw gives each cluster of documents (`vico_eval.report.scores.clusters`) a random weight, exponential with mean 1:
the Bayesian bootstrap (Rubin 1981). All rows share the weights, and a cluster in several benchmarks has one weight in
all of them, so differences are paired. For counts, the quantiles are those of the beta distribution, hence Clopper and
Pearson's limits up to the unseen change below, and they are as skewed as the data.

Four corrections to the plain bootstrap are applied per benchmark:

- Few clusters: deviations are scaled by the root of (n + 1) / (n - 1), which makes their variance unbiased, and by the
  root of (n - 1) / chi-square(n - 1), which turns normal deviations into Student's t with n - 1 degrees of freedom, as
  in Behrens and Fisher's problem. A benchmark with 10 images widens the average's interval only by its own weight.
- Several documents per cluster: few clusters contain most of the changes, so a cluster pulls the mean towards itself.
  Deviations are scaled by n / (n - 1), as if taken from the mean of the other clusters (the jackknife's residual).
- Unseen changes: rows that agree on every document still get an interval. A change is subtracted from the lower end and
  added to the upper end: half a change for retention (a gamma variable of shape 1/2), as in Jeffreys' limits for a
  count, and a whole one (of shape 1), as in McNemar's exact test, for tests of no difference, which may have missed as
  many changes in either direction. Its size is that of the observed changes: `unseen_change`.
- Skew: quantiles of a mean of skewed values are off by half the third moment over the second (Hall 1992, chapter 3).

Several runs of a row (seeds) are a separate level: a draw also weights the runs, independently of the documents. As in
the crossed bootstrap of Owen and Eckles (2012), randomness that acts on single documents counts twice, so intervals err
on the wide side; with two or three runs they are rough estimates all the same.

Coverage and error rates are measured in `benchmarks/coverage.py`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from vico_eval.report.paired.columns import Column

RESAMPLES = 4000

# Draws per chunk. Small, so that matrix products over 1,000 documents stay below the size at which BLAS starts threads,
# whose overhead would exceed the product's own time.
_CHUNK = 25


class Pair(NamedTuple):
    """Two rows' mean scores over some columns, with the draws of both."""

    own: float
    other: float
    own_draws: np.ndarray
    other_draws: np.ndarray
    """[resamples]"""

    own_spread: np.ndarray
    other_spread: np.ndarray
    """[resamples]: the same draws without the correction for few clusters, for standard errors."""

    unseen: float
    """Size of an unseen change, in points of the mean."""


class _Row(NamedTuple):
    """One row's half of a `Pair`."""

    score: float
    draws: np.ndarray
    spread: np.ndarray


class Draws:
    """Bootstrap draws of all rows' scores in all columns."""

    def __init__(self, rows: Sequence[str], columns: Sequence[Column]) -> None:
        self.rows = tuple(rows)
        self.columns = tuple(columns)
        self._deviations = [np.empty((0, 0))] * len(columns)
        """By column, [rows, resamples]: deviations from the row's score, without those between runs."""

        self._widening = [np.empty(0)] * len(columns)
        """By column, [resamples]: factors that turn deviations into Student's t."""

        for block in _blocks(columns):
            self._draw(block)
        self._of_runs = _run_deviations(self.rows, columns)
        generator = np.random.default_rng(0)
        self.half_change = generator.standard_gamma(0.5, RESAMPLES)
        """[resamples]: draws of half an unseen change."""

        self.whole_change = self.half_change + generator.standard_gamma(0.5, RESAMPLES)

    def place(self, row: str) -> int:
        """Index of a row."""
        return self.rows.index(row)

    def compared(self, own: int, other: int) -> list[int]:
        """Indices of the columns in which two rows, given by index, can be compared."""
        return [place for place, column in enumerate(self.columns) if not column.why_not(own, other)]

    def pair(self, own: int, other: int, places: Sequence[int]) -> Pair:
        """Scores and draws of two rows, averaged over the columns at `places`."""
        first, second = self._row(own, places), self._row(other, places)
        unseen = _unit([unseen_change(self.columns[place], own, other) for place in places])
        return Pair(first.score, second.score, first.draws, second.draws, first.spread, second.spread, unseen)

    def _row(self, row: int, places: Sequence[int]) -> "_Row":
        """Score and draws of one row, averaged over the columns at `places`."""
        columns = [self.columns[place] for place in places]
        score = sum(float(column.sums[:, row].sum() / column.sizes.sum()) for column in columns) / len(columns)
        plain, widened = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
        for place in places:
            deviations = self._deviations[place][row]
            of_runs = self._of_runs.get((row, place), 0.0)
            plain += deviations + of_runs
            widened += deviations * self._widening[place] + of_runs
        return _Row(score, score + widened / len(columns), score + plain / len(columns))

    def _draw(self, block: Sequence[int]) -> None:
        """Compute the draws of one block of columns, which share clusters."""
        columns = [self.columns[place] for place in block]
        clusters = np.unique(np.concatenate([column.clusters for column in columns]))
        at = [np.searchsorted(clusters, column.clusters) for column in columns]
        totals = [np.column_stack([column.sums, column.sizes]) for column in columns]
        # A benchmark's draws depend on no other benchmarks of the table, except those that share its images.
        generator = np.random.default_rng(crc32("\n".join(column.benchmark for column in columns).encode()))
        means: list[list[np.ndarray]] = [[] for _ in block]
        for start in range(0, RESAMPLES, _CHUNK):
            weights = generator.standard_exponential((min(_CHUNK, RESAMPLES - start), len(clusters)))
            for number, own in enumerate(at):
                sums = (weights if len(own) == len(clusters) else weights[:, own]) @ totals[number]
                means[number].append(sums[:, :-1] / sums[:, -1:])
        shares = generator.random(RESAMPLES)
        for place, column, drawn in zip(block, columns, means, strict=True):
            degrees = max(column.num_clusters - 1, 1)
            centre = column.sums.sum(axis=0) / column.sizes.sum()
            growth = np.sqrt((degrees + 2) / degrees)
            if len(column.groups) > column.num_clusters:
                growth *= (degrees + 1) / degrees
            self._deviations[place] = np.ascontiguousarray((growth * (np.concatenate(drawn) - centre)).T)
            self._widening[place] = _student(degrees, shares)


def unseen_change(column: Column, own: int, other: int) -> tuple[float, float, float]:
    """Size of the changes between two rows in a column.

    Returns:
        The points of the score that depend on one document of a cluster, the largest change of a cluster in documents
        (their mean number per cluster), and the observed change in documents (root mean square over changed clusters;
        NaN if none changed).
    """
    documents = len(column.groups) / column.num_clusters
    changed = np.abs(column.sums[:, own] - column.sums[:, other]) / 100
    changed = changed[changed > 0]
    size = float(np.sqrt((changed**2).mean())) if changed.size else np.nan
    return column.cluster_points / documents, documents, size


def _unit(changes: Sequence[tuple[float, float, float]]) -> float:
    """Size of an unseen change, in points of the mean over columns.

    A change is as large as the changes observed in its column; without any, as those in the other columns, or else a
    whole cluster. Several columns are combined by the root mean square, the mean weight of Tiwari, Clegg and Zou (2006)
    for sums of counts with different weights. With the largest weight (Fay and Feuer 1997), a column of 10 documents
    would determine the average's interval.
    """
    points, documents, sizes = np.array(changes).T
    seen = ~np.isnan(sizes)
    elsewhere = np.sqrt((sizes[seen] ** 2).mean()) if seen.any() else np.inf
    sizes = np.clip(np.where(seen, sizes, elsewhere), 1, documents)
    return float(np.sqrt(((points * sizes) ** 2).mean())) / len(changes)


def skew_shift(columns: Sequence[Column], own: int, other: int, slope: float) -> float:
    """Shift that corrects draws of `own - slope x other` for skew, in points of the mean over columns."""
    second = third = 0.0
    for column in columns:
        sums = column.sums[:, own] - slope * column.sums[:, other]
        parts = (sums - sums.sum() / column.sizes.sum() * column.sizes) / (column.sizes.sum() * len(columns))
        second += float((parts**2).sum())
        third += float((parts**3).sum())
    return third / second / 2 if second > 0 else 0.0


def _student(degrees: int, shares: np.ndarray) -> np.ndarray:
    """[shares]: factors that turn normal deviations into Student's t."""
    # Imported here because reading published tables needs no draws. scipy.stats would take a second longer to load.
    from scipy.special import chdtri

    return np.sqrt(degrees / np.asarray(chdtri(degrees, shares)))


def _blocks(columns: Sequence[Column]) -> Iterator[list[int]]:
    """Groups of column indices, connected by shared clusters, directly or through other columns."""
    blocks: list[tuple[set[int], list[int]]] = []
    for place, column in enumerate(columns):
        clusters, places = set(column.clusters.tolist()), [place]
        apart = []
        for block in blocks:
            if block[0].isdisjoint(clusters):
                apart.append(block)
            else:
                clusters |= block[0]
                places = [*block[1], *places]
        blocks = [*apart, (clusters, places)]
    return (places for _, places in blocks)


def _run_deviations(rows: Sequence[str], columns: Sequence[Column]) -> dict[tuple[int, int], np.ndarray]:
    """[resamples] by row and column with several runs: deviation of the row's mean due to the choice of runs."""
    deviations = {}
    for row, title in enumerate(rows):
        means = {place: column.run_means[row] for place, column in enumerate(columns) if column.run_means}
        several = {place: own for place, own in means.items() if len(own) > 1}
        if not several:
            continue
        runs = sorted({run for own in several.values() for run in own})
        weights = np.random.default_rng(crc32(title.encode())).standard_exponential((RESAMPLES, len(runs)))
        for place, own in several.items():
            drawn = weights[:, [runs.index(run) for run in own]]
            scores = np.array(list(own.values()))
            growth = np.sqrt((len(own) + 1) / (len(own) - 1))
            deviations[row, place] = growth * (drawn @ scores / drawn.sum(axis=1) - scores.mean())
    return deviations
