"""A benchmark's documents in the form that intervals and tests need: values by row, summed over clusters."""

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
    """[documents, rows], mean over a row's runs; NaN for rows that can't be compared."""

    clusters: np.ndarray
    """[clusters], int: cluster numbers. Columns with the same number draw that cluster together."""

    groups: np.ndarray
    """[documents]: index of each document's cluster in `clusters`."""

    left_out: tuple[str, ...] = ()
    """[rows]: reason that a row has no values; empty if it has."""

    knows_pictures: bool = False
    cluster_points: float = 100.0
    """Points of the score that depend on one cluster: a part's points over its clusters, for the part with the
    fewest."""

    run_means: tuple[Mapping[int, float], ...] = ()
    """[rows]: score of each of the row's runs, by run number."""

    sums: np.ndarray = field(init=False)
    """[clusters, rows]: sums of values; 0 where a row has none."""

    sizes: np.ndarray = field(init=False)
    """[clusters]: number of documents."""

    def __post_init__(self) -> None:
        count = len(self.clusters)
        known = np.nan_to_num(self.values)
        if count == len(known):  # each document is its own cluster, in some order
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
        """True if every document is its own cluster."""
        return len(self.clusters) == len(self.groups)

    def why_not(self, own: int, other: int) -> str:
        """Reason that two rows, given by index, can't be compared; empty if they can."""
        if self.left_out and (found := self.left_out[own] or self.left_out[other]):
            return found
        unknown = np.isnan(self.values[:, [other, own]])
        if unknown.all(axis=0).any():
            return "no score by document"
        if unknown.any():
            return "a part of the score depends on one document or image"
            # A single cluster gives no estimate of spread.
        return "" if self.num_clusters > 1 else "only one document or image"


def columns_of(measured: Measurements, rows: Sequence[str], benchmarks: Sequence[str]) -> list[Column]:
    """One `Column` per benchmark, with `rows` in the given order."""
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
    # A cluster may be in several parts, like an image in all three splits of POPE.
    return scored.points * max(1 / min(own), len(own) / len(np.unique(groups[scored.strata >= 0])))
