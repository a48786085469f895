"""A benchmark's score out of VLMEvalKit's metrics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vico_eval.errors import ReportError
from vico_eval.report.by_document import DocumentScores
from vico_eval.report.vlmevalkit_documents import read_scores
from vico_eval.runs.results import TaskResult
from vico_eval.runs.schema import VLMEVALKIT

_AGREEMENT = 1e-6


@dataclass(frozen=True, slots=True)
class VLMEvalKitMetric:
    """The sum of some of VLMEvalKit's metrics of one data set, times `scale`."""

    metrics: tuple[str, ...]
    scale: float
    split: str | None = None
    """Row of the score file, where it has several."""

    documents: str | None = None
    """Of `vlmevalkit_documents.READERS`; None where the score is a mean over documents."""

    is_count: bool = False
    """Whether it is to be divided by the number of documents."""

    @property
    def source(self) -> str:
        """Toolkit, metrics and scale."""
        row = "" if self.split is None else f" of {self.split}"
        number = " / documents" if self.is_count else ""
        return f"{VLMEVALKIT}: {' + '.join(self.metrics)}{row}{number} x {self.scale:.6g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The scaled sum, 0-100.

        Raises:
            ReportError: a metric is missing, or is there for several splits.
        """
        (task,) = tasks
        total = math.fsum(_metric(task, name, self.split) for name in self.metrics)
        return self.scale * total / (len(task.documents) if self.is_count else 1)

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores | None:
        """The documents' scores and values; None where VLMEvalKit's tables don't tell them, or make another score."""
        (task,) = tasks
        scores = read_scores(self.documents, task.documents, self.split)
        agrees = scores is not None and abs(float(scores.values.mean()) - self.score(tasks)) <= 100 * _AGREEMENT
        return scores if agrees else None


def _metric(task: TaskResult, name: str, split: str | None) -> float:
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
