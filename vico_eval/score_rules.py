"""How a benchmark's score, 0-100, comes out of a toolkit's results, as `tasks/benchmarks.yaml` declares it.

What each document adds to a score is computed by `vico_eval.report.scores`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vico_eval.errors import ReportError
from vico_eval.runs.results import Document, TaskResult
from vico_eval.runs.schema import VLMEVALKIT
from vico_eval.schemas import Closed

# lmms-eval means the same floats in another order; a wrong or stale samples file differs by 1 / documents at least.
_AGREEMENT = 1e-6

ByDocument = Literal[
    "hallusion_bench", "mmbench", "mmbench_v11", "mme", "mmiu", "mmmu", "muirbench", "pope", "qbench2", "seed_image"
]
"""Readers of `vico_eval.report.scores.by_document`: how documents make a score that is not their mean."""

Names = Annotated[tuple[str, ...], Field(min_length=1)]
FullMarks = Annotated[float, Field(gt=0)]
"""The value that counts as 100."""


class MetricScore(Closed):
    """A metric as lmms-eval reports it, which is the mean of `field` over the documents."""

    kind: Literal["metric"]
    key: str
    """Metric, comma, filter."""

    field: Names
    """Path to a document's number in its samples line."""

    full: FullMarks = 1

    @property
    def source(self) -> str:
        """Metric key and scale."""
        return f"{self.key} x {100 / self.full:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The reported metric, checked against the samples files.

        Raises:
            ReportError: the metric is missing or no number, or the documents' mean differs from it.
        """
        (task,) = tasks
        scale = 100 / self.full
        reported = scale * metric(task, self.key)
        check_agreement(tasks, reported, _mean(numbers(tasks, self.field, scale)), _AGREEMENT * scale)
        return reported


class DocumentMeanScore(Closed):
    """The mean of `field` over all documents of all the tasks (micro), where lmms-eval's own number is another one.

    MMStar: lmms-eval averages over level-2 categories, the paper's toolkit over questions. BLINK: over 14 subtasks
    against over questions. OCRBench: lmms-eval divides by 1000 whatever the number of documents.
    """

    kind: Literal["document_mean"]
    field: Names
    full: FullMarks = 1

    @property
    def source(self) -> str:
        """Field and scale."""
        return f"mean over documents of {'.'.join(self.field)} x {100 / self.full:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """Mean over the documents."""
        return _mean(numbers(tasks, self.field, 100 / self.full))


class TaskMeanScore(Closed):
    """The plain mean over the tasks of a reported metric that is no mean over documents, such as POPE's three F1s.

    Of one task it is the metric itself: MMBench counts groups of documents, MMMU replies that were read.
    """

    kind: Literal["task_mean"]
    key: str
    full: FullMarks = 1
    documents: ByDocument | None = None
    """How the documents make it; None where nobody has written that down, so that it has no interval."""

    @property
    def source(self) -> str:
        """Metric key and scale."""
        return f"mean over tasks of {self.key} x {100 / self.full:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """Mean over the tasks; NaN where a task has too few documents for a number."""
        scale = 100 / self.full
        return _mean([scale * metric(task, self.key, may_be_nan=True) for task in tasks])


class MetricSumScore(Closed):
    """The sum of several metrics of one task: MME's perception (0-2000) and cognition (0-800), of 2800."""

    kind: Literal["metric_sum"]
    keys: Names
    full: FullMarks
    documents: ByDocument | None = None
    """How the documents make it, as for a mean over tasks."""

    @property
    def source(self) -> str:
        """Metric keys and scale."""
        return f"({' + '.join(self.keys)}) x {100 / self.full:.6g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """Scaled sum."""
        (task,) = tasks
        return 100 / self.full * sum(metric(task, key) for key in self.keys)


Score = Annotated[
    MetricScore | DocumentMeanScore | TaskMeanScore | MetricSumScore,
    Field(discriminator="kind"),
]


class Category(Closed):
    """Where a toolkit keeps a document's category: one of the two."""

    key: str | None = None
    """Of a metric's outcome, an object in the document's samples line, or a column of VLMEvalKit's predictions."""

    beside: Names | None = None
    """Path to the metric of all documents in the samples line; the category is the name of the other one there."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Category:
        if (self.key is None) == (self.beside is None):
            raise ValueError("expected `key` or `beside`, one of them")
        return self


class VLMEvalKit(Closed):
    """The same benchmark in VLMEvalKit: the sum of some metrics of one data set."""

    dataset: str
    metrics: Names
    """Columns of its score file, added up."""

    full: FullMarks
    split: str | None = None
    """Row of the score file, where it has several."""

    documents: Literal["anls", "circular", "mme", "ocrbench", "pope"] | None = None
    """How the documents make the score (`vico_eval.report.scores.vlmevalkit`); None where it is their mean."""

    category: Category = Category(key="category")
    """Where the documents' categories are."""

    is_count: bool = False
    """Whether the metrics count documents, so that they are divided by their number."""

    index: Names | None = None
    """Path to a document's index, by which VLMEvalKit knows it, in lmms-eval's samples line; None where that has none,
    so that runs of both toolkits can't be matched document by document."""

    @property
    def source(self) -> str:
        """Toolkit, metrics and scale."""
        row = "" if self.split is None else f" of {self.split}"
        number = " / documents" if self.is_count else ""
        return f"{VLMEVALKIT}: {' + '.join(self.metrics)}{row}{number} x {100 / self.full:.6g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The scaled sum.

        Raises:
            ReportError: a metric is missing, or is there for several splits.
        """
        (task,) = tasks
        total = math.fsum(_split_metric(task, name, self.split) for name in self.metrics)
        return 100 / self.full * total / (len(task.documents) if self.is_count else 1)


def metric(task: TaskResult, key: str, *, may_be_nan: bool = False) -> float:
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


def check_agreement(tasks: Sequence[TaskResult], reported: float, made: float, tolerance: float) -> None:
    """See that the documents of `tasks` make the reported score, 0-100.

    Raises:
        ReportError: they make another one.
    """
    if abs(made - reported) > tolerance:
        names = ", ".join(task.name for task in tasks)
        files = ", ".join(task.samples_path.name for task in tasks)
        raise ReportError(
            f"By {tasks[0].results_path} the score of {names} is {reported:.6g} of 100, but the documents in {files} "
            f"make {made:.6g}. The files don't belong together; repeat the run."
        )


def numbers(tasks: Sequence[TaskResult], field: tuple[str, ...], scale: float) -> list[float]:
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


def _split_metric(task: TaskResult, name: str, split: str | None) -> float:
    """VLMEvalKit's status writes a metric as its name, behind `split=...|` where the score file has a row a split."""
    wanted = [name, f"split=Overall|{name}"] if split is None else [f"split={split}|{name}"]
    found = [key for key in wanted if key in task.metrics]
    if split is None and not found:
        found = [key for key in task.metrics if key.startswith("split=") and key.endswith(f"|{name}")]
    if len(found) != 1:
        raise ReportError(
            f"{task.results_path}: data set {task.name} has {'several' if found else 'no'} {name!r}"
            f"{'' if split is None else f' of split {split!r}'}; it has {', '.join(task.metrics)}."
        )
    value = task.metrics[found[0]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ReportError(f"{task.results_path}: {found[0]!r} of {task.name} is {value!r}; expected a number.")
    return float(value)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
