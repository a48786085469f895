"""What a report keeps of a run: counts and scores. All documents of all runs at once would take gigabytes."""

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
    """What runs of a task must have in common to be compared."""

    name: str
    version: str
    settings: Mapping[str, Any]
    doc_ids: Sequence[int | str]
    questions: np.ndarray
    """[documents], uint32, checksums; all that is asked of them is whether two runs' differ."""

    targets: np.ndarray
    """[documents], uint32, checksums of the right answers."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CountedDocuments:
    """What is kept of each document of a benchmark, task by task, ascending."""

    scored: DocumentScores | None
    """None where a document failed, or the run doesn't say how documents make the score."""

    answers: np.ndarray
    """[documents], objects: texts; None where a document failed."""

    media: Sequence[str | None]
    """[documents], the digest of its pictures (of several requests those of all, on lines of their own), empty where it
    has none; None where the run doesn't say."""

    categories: Sequence[str] | None = None
    """[documents], empty where one has none; None where the benchmark has none."""

    p_compress: np.ndarray | None = None
    """[documents], float: the router's mean score of its tiles, NaN where it has no tile; None without a router."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedBenchmark:
    """What a run says of a benchmark."""

    note: str = ""
    """Why it counts as missing, or what can't be checked."""

    tasks: tuple[CountedTask, ...] = ()
    """None where it counts as missing; then the rest is empty too."""

    cell: Mapping[str, object] = field(default_factory=dict)
    """Columns of `Measurements.cells`."""

    documents: CountedDocuments | None = None
    times: TimeSums = field(default_factory=TimeSums)
    """What its documents took, as far as the run has times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedRun:
    """A run whose documents are counted, and gone."""

    row: str
    """Its row's title."""

    method: str
    """The title less the budget that it names, where there are several."""

    folder: Path
    record: RunRecord
    notes: tuple[str, ...]
    """What a reader has to know of it besides its record."""

    tasks: tuple[str, ...]
    """All that it has, of the table or not."""

    benchmarks: Mapping[str, CountedBenchmark]
    """By title, those that it has a task of."""
