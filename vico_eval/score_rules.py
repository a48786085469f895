"""Rules that compute a benchmark's score, 0-100, from a toolkit's results, as declared in `tasks/benchmarks.yaml`.

`vico_eval.report.scores` computes what each document contributes to a score.
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

# lmms-eval sums the same floats in another order; a wrong or stale samples file differs by at least 1 / documents.
_AGREEMENT = 1e-6

ByDocument = Literal[
    "hallusion_bench", "mmbench", "mmbench_v11", "mme", "mmiu", "mmmu", "muirbench", "pope", "qbench2", "seed_image"
]
"""Names of the rules in `vico_eval.report.scores.by_document` for scores that are not a mean over documents."""

Names = Annotated[tuple[str, ...], Field(min_length=1)]
FullMarks = Annotated[float, Field(gt=0)]
"""Metric value that becomes a score of 100."""


class MetricScore(Closed):
    """A metric that lmms-eval reports and that equals the mean of `field` over the documents."""

    kind: Literal["metric"]
    key: str
    """Metric and filter, separated by a comma."""

    field: Names
    """Path to the document's value in its samples line."""

    full: FullMarks = 1

    @property
    def source(self) -> str:
        """Metric key and scale."""
        return f"{self.key} x {100 / self.full:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The reported metric, checked against the samples files.

        Raises:
            ReportError: the metric is missing or not a number, or differs from the documents' mean.
        """
        (task,) = tasks
        scale = 100 / self.full
        reported = scale * metric(task, self.key)
        check_agreement(tasks, reported, _mean(numbers(tasks, self.field, scale)), _AGREEMENT * scale)
        return reported


class DocumentMeanScore(Closed):
    """The mean of `field` over all documents of all tasks (micro average), where lmms-eval reports a different number.

    For MMStar, lmms-eval averages over level-2 categories; for BLINK, over 14 subtasks. The paper's toolkit averages
    both over questions. For OCRBench, lmms-eval divides by 1000 whatever the number of documents.
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
    """The unweighted mean over tasks of a reported metric that is not a mean over documents, such as POPE's three F1s.

    For a single task it is the metric itself: MMBench scores groups of documents, MMMU counts parsed replies.
    """

    kind: Literal["task_mean"]
    key: str
    full: FullMarks = 1
    documents: ByDocument | None = None
    """Rule that computes the score from documents; None if there is none, and then the score has no interval."""

    @property
    def source(self) -> str:
        """Metric key and scale."""
        return f"mean over tasks of {self.key} x {100 / self.full:g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """Mean over the tasks; NaN if a task has too few documents for a score."""
        scale = 100 / self.full
        return _mean([scale * metric(task, self.key, may_be_nan=True) for task in tasks])


class MetricSumScore(Closed):
    """The sum of several metrics of one task: MME's perception (0-2000) and cognition (0-800), of 2800."""

    kind: Literal["metric_sum"]
    keys: Names
    full: FullMarks
    documents: ByDocument | None = None
    """Rule that computes the score from documents, as for `TaskMeanScore`."""

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
    """Location of a document's category in a toolkit's files; exactly one field is set."""

    key: str | None = None
    """Key in a metric's outcome, which is an object in the samples line, or a column of VLMEvalKit's predictions."""

    beside: Names | None = None
    """Path in the samples line to the metric that every document has; the other metric there is named after the
    category."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Category:
        if (self.key is None) == (self.beside is None):
            raise ValueError("expected exactly one of `key` and `beside`")
        return self


class VLMEvalKit(Closed):
    """The same benchmark in VLMEvalKit: a sum of metrics of one data set."""

    dataset: str
    metrics: Names
    """Columns of the score file to add up."""

    full: FullMarks
    split: str | None = None
    """Row of the score file, if it has several."""

    documents: Literal["anls", "circular", "mme", "ocrbench", "pope"] | None = None
    """Rule in `vico_eval.report.scores.vlmevalkit` that computes the score from documents; None for their mean."""

    category: Category = Category(key="category")
    """Where the documents' categories are stored."""

    is_count: bool = False
    """The metrics count documents, so their sum is divided by the number of documents."""

    index: Names | None = None
    """Path in lmms-eval's samples line to VLMEvalKit's index of the document; None if the line lacks it, and then runs
    of the two toolkits can't be matched document by document."""

    @property
    def source(self) -> str:
        """Toolkit, metrics and scale."""
        row = "" if self.split is None else f" of {self.split}"
        number = " / documents" if self.is_count else ""
        return f"{VLMEVALKIT}: {' + '.join(self.metrics)}{row}{number} x {100 / self.full:.6g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The scaled sum.

        Raises:
            ReportError: a metric is missing or not a number, or several splits have it.
        """
        (task,) = tasks
        total = math.fsum(_split_metric(task, name, self.split) for name in self.metrics)
        return 100 / self.full * total / (len(task.documents) if self.is_count else 1)


def metric(task: TaskResult, key: str, *, may_be_nan: bool = False) -> float:
    """A reported metric. Scorers report NaN for no score, for instance if a limit on documents leaves no complete
    question.

    Raises:
        ReportError: the metric is missing, not a number, or NaN without `may_be_nan`.
    """
    value = task.metrics.get(key)
    # lmms-eval writes "N/A", null or an empty list if it has no number.
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
    """Check that the documents of `tasks` give the reported score, 0-100.

    Raises:
        ReportError: they give a different score.
    """
    if abs(made - reported) > tolerance:
        names = ", ".join(task.name for task in tasks)
        files = ", ".join(task.samples_path.name for task in tasks)
        raise ReportError(
            f"{tasks[0].results_path} reports a score of {reported:.6g} of 100 for {names}, but the documents in "
            f"{files} give {made:.6g}. The files are from different runs; repeat the run."
        )


def numbers(tasks: Sequence[TaskResult], field: tuple[str, ...], scale: float) -> list[float]:
    """The value of `field` for each document, times `scale`, task by task.

    Raises:
        ReportError: a document's value is missing or not a finite number.
    """
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
    """Look up a metric in VLMEvalKit's status, where its key starts with `split=...|` if the score file has splits."""
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
