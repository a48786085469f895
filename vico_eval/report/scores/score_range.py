"""Check that the scores of benchmarks and documents are between 0 and 100."""

import math
from collections.abc import Sequence

import numpy as np

from vico_eval.errors import ReportError
from vico_eval.report.scores.by_document import DocumentScores
from vico_eval.runs.results import TaskResult

# Covers the order of summation, and rounding by a toolkit.
_TOLERANCE = 1e-3


def checked_score(title: str, tasks: Sequence[TaskResult], score: float) -> float:
    """The score, 0-100, of benchmark `title`, after a check; NaN is allowed if a limit left too few documents for a
    score.

    Raises:
        ReportError: the score is out of range, or NaN in a complete run.
    """
    is_limited = any(len(task.documents) < task.num_available for task in tasks)
    if (math.isnan(score) and is_limited) or _is_in_range(score):
        return score
    places = ", ".join(dict.fromkeys(str(task.results_path) for task in tasks))
    raise ReportError(
        f"{places}: {title} has a score of {score:.6g}; expected a number from 0 to 100. {_advice(tasks)}"
    )


def checked_documents(
    title: str, tasks: Sequence[TaskResult], documents: DocumentScores | None
) -> DocumentScores | None:
    """The documents' scores for benchmark `title`, after a check: 0-100, or NaN for documents without their own score.

    Raises:
        ReportError: a score is out of range; the message names the document.
    """
    if documents is None or not documents.scores.size:
        return documents
    # The score farthest from the middle; if all are NaN, there is nothing to check.
    distances = np.nan_to_num(np.abs(documents.scores - 50), nan=0.0, posinf=math.inf)
    place = int(distances.argmax())
    if math.isnan(documents.scores[place]) or _is_in_range(documents.scores[place]):
        return documents
    task, document = [(task, document) for task in tasks for document in task.documents][place]
    raise ReportError(
        f"{task.samples_path}: document {document.doc_id} has {documents.scores[place]:.6g} of 100 points of {title}; "
        f"expected 0 to 100. {_advice(tasks)}"
    )


def _is_in_range(value: float) -> bool:
    return -_TOLERANCE <= value <= 100 + _TOLERANCE


def _advice(tasks: Sequence[TaskResult]) -> str:
    return (
        f"Files of {', '.join(task.name for task in tasks)} were changed, or `score` in the task's entry in "
        "tasks/benchmarks.yaml is wrong. Repeat the run, or correct the entry."
    )
