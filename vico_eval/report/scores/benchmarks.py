"""Suites as tables that can be computed: from a toolkit's numbers to a 0-100 scale."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from vico_eval import suites
from vico_eval.cards import load_cards
from vico_eval.errors import ReportError
from vico_eval.paths import models_dir
from vico_eval.report.scores.by_document import READINGS, DocumentScores, plain, read_scores
from vico_eval.report.scores.vlmevalkit import VLMEvalKitMetric
from vico_eval.runs.results import Document, TaskResult
from vico_eval.runs.schema import VLMEVALKIT
from vico_eval.suites import load_benchmarks, load_suite, task_names

# lmms-eval means the same floats in another order; a wrong or stale samples file differs by 1 / documents at least.
_AGREEMENT = 1e-6

# As much of a point, where lmms-eval rounds, as MMMU's accuracy to five digits.
_ROUNDING = 1e-3


class Conversion(Protocol):
    """How a benchmark's number on 0-100 comes out of its lmms-eval tasks."""

    @property
    def source(self) -> str:
        """Where the number comes from, for people who trace it."""

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The benchmark's score, 0-100, unrounded."""

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores | None:
        """The documents' scores and values; None where the run doesn't say how they make the score.

        Raises:
            ReportError: they make another score than the one reported.
        """


@dataclass(frozen=True, slots=True)
class ReportedMetric:
    """A metric as lmms-eval reports it, times `scale`.

    The metric must be the mean of `field` over the documents; the samples file is checked against it.
    """

    key: str
    """lmms-eval's key: metric, comma, filter."""

    field: tuple[str, ...]
    """Path to a document's number in its samples line."""

    scale: float = 100.0

    @property
    def source(self) -> str:
        """Metric key and scale."""
        return f"{self.key} x {self.scale:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The reported metric on 0-100.

        Raises:
            ReportError: the metric is missing or no number, or the documents' mean differs from it.
        """
        (task,) = tasks
        reported = self.scale * _metric(task, self.key)
        _check_agreement(tasks, reported, _mean(_fields(tasks, self.field, self.scale)), _AGREEMENT * self.scale)
        return reported

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores:
        """Each document's `field` on 0-100."""
        return plain(_fields(tasks, self.field, self.scale))


@dataclass(frozen=True, slots=True)
class DocumentMean:
    """The mean over all documents of all the benchmark's tasks (micro), where lmms-eval's own number is another one.

    MMStar: lmms-eval averages over level-2 categories, the paper's toolkit over questions. BLINK: over 14 subtasks
    against over questions. OCRBench: lmms-eval divides by 1000 whatever the number of documents.
    """

    field: tuple[str, ...]
    scale: float = 100.0

    @property
    def source(self) -> str:
        """Field and scale."""
        return f"mean over documents of {'.'.join(self.field)} x {self.scale:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """Mean over the documents, 0-100."""
        return _mean(_fields(tasks, self.field, self.scale))

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores:
        """Each document's `field` on 0-100."""
        return plain(_fields(tasks, self.field, self.scale))


@dataclass(frozen=True, slots=True)
class TaskMean:
    """The plain mean over tasks of a metric that is no mean over documents, such as POPE's three F1 scores.

    Of one task it is the metric itself: MMBench counts groups of documents, MMMU replies that were read.
    """

    key: str
    scale: float = 100.0
    documents: str | None = None
    """Of `by_document.READERS`."""

    @property
    def source(self) -> str:
        """Metric key and scale."""
        return f"mean over tasks of {self.key} x {self.scale:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """Mean over the tasks, 0-100; NaN where a task has too few documents for a number."""
        return _mean([self.scale * _metric(task, self.key, may_be_nan=True) for task in tasks])

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores | None:
        """By `documents`, if it is given."""
        return _read(self.documents, tasks, self.score(tasks))


@dataclass(frozen=True, slots=True)
class MetricSum:
    """The sum of a task's metrics, times `scale`: MME's perception (0-2000) and cognition (0-800), over 28."""

    keys: tuple[str, ...]
    scale: float
    documents: str | None = None
    """Of `by_document.READERS`."""

    @property
    def source(self) -> str:
        """Metric keys and scale."""
        return f"({' + '.join(self.keys)}) x {self.scale:.6g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """Scaled sum, 0-100."""
        (task,) = tasks
        return self.scale * sum(_metric(task, key) for key in self.keys)

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores | None:
        """By `documents`, if it is given."""
        return _read(self.documents, tasks, self.score(tasks))


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A column of a table."""

    title: str
    tasks: tuple[str, ...]
    conversion: Conversion
    digits: int = 1
    model_args: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What the model must have been started with; otherwise its score is one of another benchmark."""

    vlmevalkit: "Benchmark | None" = None
    """The same column in runs of VLMEvalKit; None where it lacks the benchmark."""

    def of(self, harness: str) -> "Benchmark | None":
        """The column in runs of a toolkit, by the name in their records."""
        return self.vlmevalkit if harness == VLMEVALKIT else self


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSpec:
    """A table: which benchmarks, in which order."""

    name: str
    caption: str
    benchmarks: tuple[Benchmark, ...]
    file_stem: str
    """Name of its files, less the ending."""

    systems: tuple[str, ...]
    """Systems in the order of its rows; the first one counts as 100% unless a baseline is named."""


def table_spec(name: str) -> TableSpec:
    """The table of the suite called `name`, or whose table is.

    Raises:
        ConfigError: there is none (the message lists those there are), or a file of the suite or a card doesn't fit.
    """
    suite = load_suite(name)
    catalogue = load_benchmarks()
    return TableSpec(
        name=suite.table,
        caption=suite.title,
        benchmarks=tuple(as_column(catalogue[benchmark]) for benchmark in suite.benchmarks),
        file_stem=suite.file_stem,
        systems=tuple(load_cards(models_dir(), suite.cards)),
    )


def as_column(benchmark: suites.Benchmark) -> Benchmark:
    """An entry of the catalogue as a column that can be computed.

    Raises:
        ConfigError: the file of an override among its tasks doesn't fit.
    """
    column = Benchmark(
        title=benchmark.title,
        tasks=task_names(benchmark),
        conversion=_conversion(benchmark.score),
        digits=benchmark.digits,
        model_args=benchmark.model_args,
    )
    if (other := benchmark.vlmevalkit) is None:
        return column
    conversion = VLMEvalKitMetric(other.metrics, 100 / other.full, other.split, other.documents, other.is_count)
    # There the data set's name says how many frames.
    model_args = {name: value for name, value in benchmark.model_args.items() if name != "num_frames"}
    in_vlmevalkit = replace(column, tasks=(other.dataset,), conversion=conversion, model_args=model_args)
    return replace(column, vlmevalkit=in_vlmevalkit)


def _conversion(score: suites.Score) -> Conversion:
    scale = 100 / score.full
    match score:
        case suites.MetricScore():
            return ReportedMetric(score.key, score.field, scale)
        case suites.DocumentMeanScore():
            return DocumentMean(score.field, scale)
        case suites.TaskMeanScore():
            return TaskMean(score.key, scale, score.documents)
        case suites.MetricSumScore():
            return MetricSum(score.keys, scale, score.documents)


def _metric(task: TaskResult, key: str, *, may_be_nan: bool = False) -> float:
    """A reported metric; NaN is a scorer's own word for none, as where a limit leaves no whole question."""
    value = task.metrics.get(key)
    # lmms-eval writes "N/A", null or an empty list where it has no number.
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (math.isfinite(value) or (may_be_nan and math.isnan(value)))
    ):
        raise ReportError(
            f"{task.results_path}: metric `{key}` of task {task.name} is {value!r}; expected a number. "
            f"The task has: {', '.join(sorted(key for key in task.metrics if key != 'alias')) or 'no metrics'}."
        )
    return float(value)


def _read(name: str | None, tasks: Sequence[TaskResult], reported: float) -> DocumentScores | None:
    if name is None or math.isnan(reported):
        return None
    scores = read_scores(name, tasks)
    if scores is None or np.isnan(scores.values).any():
        return scores
    made = float(scores.values.mean())
    if name in READINGS and abs(made - reported) > _ROUNDING:
        return None
    _check_agreement(tasks, reported, made, _ROUNDING)
    return scores


def _check_agreement(tasks: Sequence[TaskResult], reported: float, made: float, tolerance: float) -> None:
    if abs(made - reported) > tolerance:
        names = ", ".join(task.name for task in tasks)
        files = ", ".join(task.samples_path.name for task in tasks)
        raise ReportError(
            f"By {tasks[0].results_path} the score of {names} is {reported:.6g} of 100, but the documents in {files} "
            f"make {made:.6g}. The files don't belong together; repeat the run."
        )


def _fields(tasks: Sequence[TaskResult], field: tuple[str, ...], scale: float) -> list[float]:
    """A number of each document, task by task."""
    return [scale * _number(task, document, field) for task in tasks for document in task.documents]


def _number(task: TaskResult, document: Document, field: tuple[str, ...]) -> float:
    value: object = document.fields
    for name in field:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        raise ReportError(
            f"{task.samples_path}: `{'.'.join(field)}` of document {document.doc_id} is {value!r}; expected a number."
        )
    return float(value)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
