"""A finished run of VLMEvalKit, read from the folder that `vico-eval vlmeval run` wrote.

VLMEvalKit notes an error in a data set and goes on with the next one, so a run counts only if every data set has a
score and every prediction is an answer that we gave.

Format: ms-vlmeval 0.0.20, `<run>/<model>/status.json`, `<model>_<data set>.tsv` with the predictions, and a file beside
it with each document's score, whose name depends on the kind of data set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.records import DocumentKey, TokenAccount, read_json, read_record, read_side_accounts
from vico_eval.report.runs import Document, Run, TaskResult, read_run

HARNESS = "VLMEvalKit"
"""Of such a run's record."""

FAILED = "Failed to obtain answer"
"""What VLMEvalKit writes in place of an answer that it could not get, and scores."""

_SCORES = (("_{judge}_result", "hit"), ("_auxmatch", "score"), ("_results", "eval_score"), ("_score", "score"))
"""Endings of the files with documents' scores and the column: multiple choice, yes or no, short answers, videos."""

_AGREEMENT = 1e-6


@dataclass(frozen=True, slots=True)
class VLMEvalKitMetric:
    """The sum of some of VLMEvalKit's metrics of one data set, times `scale`."""

    metrics: tuple[str, ...]
    scale: float
    split: str | None = None
    """Row of the score file, where it has several."""

    @property
    def source(self) -> str:
        """Toolkit, metrics and scale."""
        row = "" if self.split is None else f" of {self.split}"
        return f"{HARNESS}: {' + '.join(self.metrics)}{row} x {self.scale:.6g}"

    def score(self, tasks: Sequence[TaskResult]) -> float:
        """The scaled sum, 0-100.

        Raises:
            ReportError: a metric is missing, or is there for several splits.
        """
        (task,) = tasks
        return self.scale * math.fsum(_metric(task, name, self.split) for name in self.metrics)

    def document_scores(self, tasks: Sequence[TaskResult]) -> Mapping[DocumentKey, float] | None:
        """Documents' scores on 0-100; None where their mean is another number, as of F1, ANLS, pairs and groups."""
        (task,) = tasks
        scores = {
            (task.name, document.doc_id): 100 * document.fields["score"]
            for document in task.documents
            if "score" in document.fields
        }
        if len(scores) < len(task.documents):
            return None
        agrees = abs(math.fsum(scores.values()) / len(scores) - self.score(tasks)) <= 100 * _AGREEMENT
        return scores if agrees else None


def read_any_run(folder: Path) -> Run:
    """The run in `folder`, by whichever toolkit its record names.

    Raises:
        ReportError: as `read_run` and `read_vlmevalkit_run`.
    """
    has_record = (folder / "record.json").is_file()
    if has_record and read_record(folder).harness == HARNESS:
        return read_vlmevalkit_run(folder)
    return read_run(folder)


def read_vlmevalkit_run(folder: Path) -> Run:
    """The run in `folder`, every document of every data set answered by us and every data set scored.

    Raises:
        ReportError: no record or status, a data set without a score, or documents without an answer; named.
    """
    record = read_record(folder)
    found = sorted(folder.glob("*/status.json"))
    if len(found) != 1:
        raise ReportError(f"{folder} holds {len(found)} files */status.json; expected VLMEvalKit's one of a run.")
    status_path = found[0]
    accounts = read_side_accounts(folder)
    tasks = {}
    for name in _datasets(status_path):
        status = check_evaluated(status_path.parent, name)
        predictions = status_path.parent / f"{status_path.parent.name}_{name}.tsv"
        tasks[name] = TaskResult(
            name=name,
            metrics=status["metrics"],
            documents=_documents(name, predictions, str(status.get("judge_model")), accounts),
            num_available=len(_table(predictions)),
            version=str(record.versions.get("ms_vlmeval")),
            settings={key: record.settings.get(key) for key in ("generation", "judge")},
            results_path=status_path,
            samples_path=predictions,
        )
    return Run(folder=folder, record=record, tasks=tasks)


def check_evaluated(model_folder: Path, name: str) -> dict[str, Any]:
    """What VLMEvalKit's status of a run says of data set `name`.

    Raises:
        ReportError: it has no score; says why.
    """
    path = model_folder / "status.json"
    status: dict[str, Any] = _datasets(path).get(name, {})
    reason = status.get("error_message") or status.get("skip_reason")
    if reason or not status.get("metrics"):
        raise ReportError(
            f"VLMEvalKit has no score of {name} in {path}: {reason or status.get('status', 'it was not begun')}. "
            "Its log is in the folder logs beside; mend the cause and repeat the command."
        )
    return status


def _datasets(status_path: Path) -> dict[str, Any]:
    datasets = read_json(status_path).get("datasets")
    if not isinstance(datasets, dict) or not datasets:
        raise ReportError(
            f"{status_path} names no data sets; expected the status of a run of ms-vlmeval 0.0.20 or newer."
        )
    return datasets


def _documents(
    name: str, predictions: Path, judge: str, accounts: Mapping[DocumentKey, TokenAccount]
) -> tuple[Document, ...]:
    """The documents in the order of the data set; their field `score` is VLMEvalKit's, 0-1, where it has one."""
    scores = _document_scores(predictions, judge)
    table = _table(predictions)
    documents = []
    unanswered = []
    for index, prediction, question, target in zip(
        table["index"], table["prediction"], _column(table, "question"), _column(table, "answer"), strict=True
    ):
        doc_id = _doc_id(index)
        account = accounts.get((name, doc_id))
        if account is None or FAILED in prediction:
            unanswered.append(str(index))
            continue
        fields = {"prediction": prediction} | ({"score": scores[index]} if index in scores else {})
        documents.append(
            Document(
                doc_id=doc_id,
                fields=fields,
                account=(account,),
                answer=prediction,
                question=question,
                target=target,
            )
        )
    if unanswered:
        named = ", ".join(unanswered[:10]) + (f" and {len(unanswered) - 10} more" if len(unanswered) > 10 else "")
        raise ReportError(
            f"{predictions} has documents without an answer of this run: {named}. Remove it with every "
            f"other file of this data set beside it (VLMEvalKit takes answers and scores from them) and repeat the "
            "command; what this run has answered is not asked again."
        )
    return tuple(documents)


def _document_scores(predictions: Path, judge: str) -> dict[str, float]:
    for ending, column in _SCORES:
        path = predictions.with_name(f"{predictions.stem}{ending.format(judge=judge)}.tsv")
        if path.is_file() and column in (table := _table(path)):
            return {index: _number(value, path) for index, value in zip(table["index"], table[column], strict=True)}
    return {}


def _table(path: Path) -> pd.DataFrame:
    """All cells as text: `None` and `NA` are answers."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} can't be read: {error}. Remove it and repeat the command.") from error
    if "index" not in table:
        raise ReportError(f"{path} has no column `index`; expected a file of VLMEvalKit.")
    return table


def _column(table: pd.DataFrame, name: str) -> Sequence[str]:
    return list(table[name]) if name in table else [""] * len(table)


def _doc_id(index: str) -> int | str:
    return int(index) if index.isdecimal() else index


def _number(text: str, path: Path) -> float:
    try:
        return {"True": 1.0, "False": 0.0}[text] if text in ("True", "False") else float(text)
    except ValueError as error:
        raise ReportError(f"{path}: a document's score is {text!r}; expected a number.") from error


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
    return float(task.metrics[found[0]])
