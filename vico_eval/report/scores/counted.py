"""Counts and scores that a report keeps of a run. All documents of all runs would take gigabytes of memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vico_eval.report.scores.by_document import DocumentScores
from vico_eval.runs.results import TimeSums
from vico_eval.runs.schema import RunRecord


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CountedTask:
    """Properties of a task that comparable runs must share."""

    name: str
    version: str
    settings: Mapping[str, Any]
    doc_ids: Sequence[int | str]
    questions: np.ndarray
    """[documents], uint32, checksums of the questions, used only to detect differences between runs."""

    targets: np.ndarray
    """[documents], uint32, checksums of the reference answers."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CountedDocuments:
    """Data kept for each document of a benchmark, task by task, in ascending order."""

    scored: DocumentScores | None
    """Scores by document; None if a document failed, or if the score can't be computed from documents."""

    answers: np.ndarray
    """[documents], objects: the answers' texts; None for failed documents."""

    media: Sequence[str | None]
    """[documents], digests of the images, one line per request; empty for documents without images, None if unknown."""

    categories: Sequence[str] | None = None
    """[documents], empty for documents without a category; None if the benchmark has no categories."""

    p_compress: np.ndarray | None = None
    """[documents], float: the router's mean score over the document's tiles, NaN without tiles; None without a
    router."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedBenchmark:
    """A run's scores and counts for a benchmark."""

    note: str = ""
    """Reason that the benchmark counts as missing, or a caveat."""

    tasks: tuple[CountedTask, ...] = ()
    """The benchmark's tasks; empty, like the other fields, if the benchmark counts as missing."""

    cell: Mapping[str, object] = field(default_factory=dict)
    """Columns of `Measurements.cells`."""

    documents: CountedDocuments | None = None
    times: TimeSums = field(default_factory=TimeSums)
    """Times of the documents, as far as the run has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedRun:
    """A run reduced to scores and counts."""

    row: str
    """Title of the run's row."""

    method: str
    """The row's title without its budget, if the method has several."""

    folder: Path
    record: RunRecord
    notes: tuple[str, ...]
    """Caveats for a reader that the record does not contain."""

    tasks: tuple[str, ...]
    """All tasks of the run, in the table or not."""

    benchmarks: Mapping[str, CountedBenchmark]
    """The benchmarks that the run has a task of, by title."""
