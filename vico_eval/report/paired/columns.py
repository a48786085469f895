"""A benchmark's documents as intervals and tests take them: values by row, summed over the clusters that are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from vico_eval.report.scores.by_document import DocumentScores
from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import runs_by_cell, why_left_out


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One benchmark's paired values."""

    benchmark: str
    values: np.ndarray
    """[documents, rows], mean over a row's runs. NaN where a row can't be compared."""

    clusters: np.ndarray
    """[clusters], int: their numbers. One that another column has too is drawn together with it."""

    groups: np.ndarray
    """[documents]: the place of each document's cluster in `clusters`."""

    left_out: tuple[str, ...] = ()
    """[rows]: why a row has no values; empty where it has."""

    knows_pictures: bool = False
    cluster_points: float = 100.0
    """Points of the score that ride on one cluster: a part's points over its clusters, for the part with the fewest."""

    run_means: tuple[Mapping[int, float], ...] = ()
    """[rows]: the score of each of a row's runs, by the runs' numbers."""

    sums: np.ndarray = field(init=False)
    """[clusters, rows]: summed values; 0 where a row has none."""

    sizes: np.ndarray = field(init=False)
    """[clusters]: numbers of documents."""

    def __post_init__(self) -> None:
        count = len(self.clusters)
        known = np.nan_to_num(self.values)
        if count == len(known):  # each document is a cluster, in some order
            sums = np.empty_like(known)
            sums[self.groups] = known
        else:
            sums = np.stack([np.bincount(self.groups, weights=row, minlength=count) for row in known.T], axis=1)
        object.__setattr__(self, "sums", sums)
        object.__setattr__(self, "sizes", np.bincount(self.groups, minlength=count).astype(float))

    @property
    def num_clusters(self) -> int:
        return len(self.clusters)

    @property
    def are_alone(self) -> bool:
        """Whether no two documents share a cluster."""
        return len(self.clusters) == len(self.groups)

    def why_not(self, own: int, other: int) -> str:
        """Why the rows at two places can't be compared; empty where they can."""
        if self.left_out and (found := self.left_out[own] or self.left_out[other]):
            return found
        unknown = np.isnan(self.values[:, [other, own]])
        if unknown.all(axis=0).any():
            return "no score by document"
        if unknown.any():
            return "a part of the score rests on one document or picture"
        # One cluster has no spread, and says nothing of others.
        return "" if self.num_clusters > 1 else "only one document or picture"


def columns_of(measured: Measurements, rows: Sequence[str], benchmarks: Sequence[str]) -> list[Column]:
    """The benchmarks' values, of the rows in this order."""
    runs = runs_by_cell(measured.cells)
    reasons = why_left_out(measured.cells, rows, benchmarks)
    columns = []
    for benchmark in benchmarks:
        left_out = tuple(reasons[row, benchmark] for row in rows)
        if benchmark not in measured.values:
            empty = np.full((1, len(rows)), np.nan)
            columns.append(Column(benchmark, empty, np.array([-1]), np.zeros(1, dtype=np.int64), left_out))
            continue
        documents = measured.documents[benchmark]
        numbers = [runs.get((row, benchmark), []) for row in rows]
        columns.append(
            _column(benchmark, documents, measured.values[benchmark].reindex(columns=rows), left_out, numbers)
        )
    return columns


def _column(
    benchmark: str,
    documents: Documents,
    values: pd.DataFrame,
    left_out: tuple[str, ...],
    runs: Sequence[Sequence[int]],
) -> Column:
    clusters, groups = np.unique(values.index.to_numpy(), return_inverse=True)
    scored = documents.scored
    return Column(
        benchmark,
        values.to_numpy(dtype=float),
        clusters,
        groups,
        left_out,
        documents.knows_pictures,
        100.0 if scored is None else _cluster_points(groups, scored),
        tuple(_means(documents, own) for own in runs),
    )


def _means(documents: Documents, runs: Sequence[int]) -> dict[int, float]:
    scored = {run: documents.runs[run].scored for run in runs}
    return {run: np.nan if own is None else float(own.values.mean()) for run, own in scored.items()}


def _cluster_points(groups: np.ndarray, scored: DocumentScores) -> float:
    own = [len(np.unique(groups[scored.strata == part])) for part in range(scored.strata.max() + 1)]
    # A cluster may be in several parts, as a picture in all three of POPE.
    return scored.points * max(1 / min(own), len(own) / len(np.unique(groups[scored.strata >= 0])))
