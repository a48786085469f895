"""Draws of every row's score, from which a report's intervals and tests are read.

A draw gives each cluster of documents (`vico_eval.report.scores.clusters`) a random weight, exponential of mean 1: the
Bayesian bootstrap (Rubin 1981). All rows see the same weights, and a cluster that several benchmarks share has one
weight in all, so differences are paired. For counts the quantiles are those of the beta distribution, hence
Clopper and Pearson's limits up to the unseen change below, and they are skewed as the data are.

What a plain bootstrap lacks is added, for each benchmark by itself:

- Few clusters: deviations grow by the root of (n + 1) / (n - 1), which makes their variance unbiased, and by that of
  (n - 1) / chi-square(n - 1), which makes normal deviations Student's t with n - 1 degrees of freedom, as of Behrens
  and Fisher. A benchmark about 10 pictures widens the average by what it weighs there, and no more.
- Changes that were not seen: rows that agree on every document still have an interval. A change is taken off the lower
  end and added to the upper one: half of one for retention (a gamma variable of shape 1/2), as in Jeffreys' limits of a
  count, and a whole one (of shape 1), as in McNemar's exact test, for tests of no difference, where as many changes
  either way may have been missed. It weighs as much as the changes that were seen: `unseen_change`.
- Skew: quantiles of a mean of skewed values lie half of the third over the second moment off (Hall 1992, chapter 3).

Several runs of a row (seeds) are a level of their own: a draw weighs the runs too, independently of the documents. As
in the crossed bootstrap of Owen and Eckles (2012) chance that acts on single documents counts twice, so this errs on
the wide side; with two or three runs it is a rough estimate all the same.

Coverage and errors: `benchmarks/coverage.py`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from vico_eval.report.paired.columns import Column

RESAMPLES = 4000

# Draws that are held at once: few, for threads would take longer to share a product of 1,000 documents than to make it.
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
    """[resamples]: the same without what makes up for few clusters, for standard errors."""

    unseen: float
    """Points of the mean that an unseen change weighs."""


class _Row(NamedTuple):
    """One row's part of a `Pair`."""

    score: float
    draws: np.ndarray
    spread: np.ndarray


class Draws:
    """Draws of all rows' scores in all columns."""

    def __init__(self, rows: Sequence[str], columns: Sequence[Column]) -> None:
        self.rows = tuple(rows)
        self.columns = tuple(columns)
        self._deviations = [np.empty((0, 0))] * len(columns)
        """By column, [rows, resamples]: from the row's score, less those of runs."""

        self._widening = [np.empty(0)] * len(columns)
        """By column, [resamples]: what makes deviations Student's t."""

        for block in _blocks(columns):
            self._draw(block)
        self._of_runs = _run_deviations(self.rows, columns)
        generator = np.random.default_rng(0)
        self.half_change = generator.standard_gamma(0.5, RESAMPLES)
        """[resamples]: draws of an unseen half of a change."""

        self.whole_change = self.half_change + generator.standard_gamma(0.5, RESAMPLES)

    def place(self, row: str) -> int:
        """Of a row."""
        return self.rows.index(row)

    def compared(self, own: int, other: int) -> list[int]:
        """Places of the columns in which the rows at two places can be compared."""
        return [place for place, column in enumerate(self.columns) if not column.why_not(own, other)]

    def pair(self, own: int, other: int, places: Sequence[int]) -> Pair:
        """The rows at two places, over the mean of the columns at `places`."""
        first, second = self._row(own, places), self._row(other, places)
        unseen = _unit([unseen_change(self.columns[place], own, other) for place in places])
        return Pair(first.score, second.score, first.draws, second.draws, first.spread, second.spread, unseen)

    def _row(self, row: int, places: Sequence[int]) -> "_Row":
        """One row over the mean of the columns at `places`."""
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
        """Fills in the columns of one block, which have clusters in common."""
        columns = [self.columns[place] for place in block]
        clusters = np.unique(np.concatenate([column.clusters for column in columns]))
        at = [np.searchsorted(clusters, column.clusters) for column in columns]
        totals = [np.column_stack([column.sums, column.sizes]) for column in columns]
        # A benchmark's draws don't depend on which others the table has, but for those with its pictures.
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
            self._deviations[place] = np.ascontiguousarray((growth * (np.concatenate(drawn) - centre)).T)
            self._widening[place] = _student(degrees, shares)


def unseen_change(column: Column, own: int, other: int) -> tuple[float, float, float]:
    """What is known of the size of changes between two rows in a column.

    Returns:
        The points of the score that ride on one document of a cluster, the most documents of a cluster that could
        change (their mean number), and the number of documents that a cluster changes by where it changes (root mean
        square over its clusters; NaN where none changed).
    """
    documents = len(column.groups) / column.num_clusters
    changed = np.abs(column.sums[:, own] - column.sums[:, other]) / 100
    changed = changed[changed > 0]
    size = float(np.sqrt((changed**2).mean())) if changed.size else np.nan
    return column.cluster_points / documents, documents, size


def _unit(changes: Sequence[tuple[float, float, float]]) -> float:
    """Points of the mean over columns that an unseen change weighs.

    A change is as large as those seen in its column, or where there are none as in the others, or else a whole
    cluster. Over several columns it is the root mean square: the mean weight of Tiwari, Clegg and Zou (2006) for sums
    of counts of different weights, of which the largest (Fay and Feuer 1997) would let a column of 10 documents decide
    the average's interval.
    """
    points, documents, sizes = np.array(changes).T
    seen = ~np.isnan(sizes)
    elsewhere = np.sqrt((sizes[seen] ** 2).mean()) if seen.any() else np.inf
    sizes = np.clip(np.where(seen, sizes, elsewhere), 1, documents)
    return float(np.sqrt(((points * sizes) ** 2).mean())) / len(changes)


def skew_shift(columns: Sequence[Column], own: int, other: int, slope: float) -> float:
    """By how much draws of `own - slope x other` lie off for their skew, in points of the mean over columns."""
    second = third = 0.0
    for column in columns:
        sums = column.sums[:, own] - slope * column.sums[:, other]
        parts = (sums - sums.sum() / column.sizes.sum() * column.sizes) / (column.sizes.sum() * len(columns))
        second += float((parts**2).sum())
        third += float((parts**3).sum())
    return third / second / 2 if second > 0 else 0.0


def _student(degrees: int, shares: np.ndarray) -> np.ndarray:
    """[shares]: what makes normal deviations those of Student's t."""
    # Only here: what reads published tables draws nothing. scipy.stats would take a second more to load.
    from scipy.special import chdtri

    return np.sqrt(degrees / np.asarray(chdtri(degrees, shares)))


def _blocks(columns: Sequence[Column]) -> Iterator[list[int]]:
    """Places of columns, those together that have clusters in common, also by way of others."""
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
    """By place of a row and column where there are several runs, [resamples]: how far the row's mean lies off for the
    choice of its runs."""
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
