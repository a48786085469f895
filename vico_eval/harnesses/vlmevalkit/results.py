"""A finished run of VLMEvalKit, read from the folder that `vico-eval vlmeval run` or VLMEvalKit itself wrote.

VLMEvalKit notes an error in a data set and goes on with the next one, so a run counts only if every data set has a
score and every prediction is an answer that we gave. Of a run that VLMEvalKit started itself, data sets without a score
are left out, and an answer is what it does not mark as a failure.

Format: ms-vlmeval 0.0.20, `<run>/<model>/status.json`, `<model>_<data set>.xlsx` or .tsv with the predictions, and a
file beside it with each document's score, whose name depends on the kind of data set.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vico_eval.errors import ReportError
from vico_eval.harnesses.files import check_folder, check_one_run, nothing_found, results_files, status_files
from vico_eval.harnesses.lmms_eval.results import read_run
from vico_eval.harnesses.unrecorded import vlmevalkit_record, what_is_unknown
from vico_eval.harnesses.vlmevalkit.documents import read_scores
from vico_eval.harnesses.vlmevalkit.tables import FAILED, column_of, is_prediction_of, prediction_table, scored_fields
from vico_eval.report.by_document import DocumentScores
from vico_eval.runs.answers import Answered, read_journal
from vico_eval.runs.records import RECORD_NAME, TokenAccount, read_json, read_record
from vico_eval.runs.results import Document, Run, TaskResult

HARNESS = "VLMEvalKit"
"""Of such a run's record."""

_AGREEMENT = 1e-6

_ASKED = ("category", "image_path", "split")
"""Columns of the predictions that a score may be made from."""


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
        return f"{HARNESS}: {' + '.join(self.metrics)}{row}{number} x {self.scale:.6g}"

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


def read_any_run(folder: Path, only: Collection[str] | None = None, *, blank_is_wrong: bool = False) -> Run:
    """The run in `folder`, by whichever toolkit its record names; without one, by whose files are there.

    Args:
        folder: lmms-eval's --output_path or VLMEvalKit's --work-dir.
        only: tasks to read; None for all.
        blank_is_wrong: as `read_run`; VLMEvalKit marks what it has no answer to.

    Raises:
        ReportError: as `read_run` and `read_vlmevalkit_run`, or files of both toolkits or of none.
    """
    check_folder(folder)
    record = read_record(folder)
    if record is not None:
        return read_vlmevalkit_run(folder, only) if record.harness == HARNESS else read_run(folder, only)
    statuses, results = status_files(folder), results_files(folder)
    if not statuses and not results:
        raise nothing_found(folder)
    check_one_run(folder, [*statuses, *results])
    if statuses and results:
        raise ReportError(
            f"{folder} holds results of lmms-eval ({results[-1].name}) and of VLMEvalKit ({statuses[0].name}). "
            "Expected those of one toolkit; move one's to a folder of its own."
        )
    return read_vlmevalkit_run(folder, only) if statuses else read_run(folder, only, blank_is_wrong=blank_is_wrong)


def read_vlmevalkit_run(folder: Path, only: Collection[str] | None = None) -> Run:
    """The run in `folder`, every document of every data set answered by us and every data set scored.

    Args:
        folder: VLMEvalKit's --work-dir.
        only: data sets to read; None for all.

    Raises:
        ReportError: no status or several, a data set without a score, or documents without an answer; named.
    """
    found = status_files(folder)
    if not found:
        raise ReportError(f"{folder} holds no file status.json; expected VLMEvalKit's one of a run.")
    check_one_run(folder, found)
    (status_path,) = found
    status = read_json(status_path)
    own = read_record(folder)
    record = own or vlmevalkit_record(folder, status_path, status, HARNESS)
    journal = None if own is None else read_journal(folder, only) or {}
    if own is not None:
        _check_model(folder, own.method, status_path, status)
    tasks = {}
    notes = [] if own else [what_is_unknown(HARNESS)]
    for name in _datasets(status_path):
        if only is not None and name not in only:
            continue
        try:
            entry = check_evaluated(status_path.parent, name)
        except ReportError as error:
            if own is not None:
                raise
            notes.append(str(error))
            continue
        predictions = _predictions(status_path, status, name, entry)
        judge = entry.get("judge_model")
        documents = _documents(predictions, str(judge), None if journal is None else journal.get(name, {}))
        tasks[name] = TaskResult(
            name=name,
            metrics=entry["metrics"],
            documents=documents,
            num_available=len(documents),
            version=str(record.versions.get("ms_vlmeval") or ""),
            settings={"generation": record.settings.get("generation"), "judge": judge},
            results_path=status_path,
            samples_path=predictions,
        )
    if not tasks:
        raise ReportError(" ".join(notes[1:]))
    return Run(folder=folder, record=record, tasks=tasks, notes=tuple(notes))


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
    if not isinstance(datasets, dict) or not datasets or not all(isinstance(one, dict) for one in datasets.values()):
        raise ReportError(
            f"{status_path} names no data sets; expected the status of a run of ms-vlmeval 0.0.20 or newer."
        )
    return datasets


def _predictions(status_path: Path, status: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> Path:
    """The file of a data set's predictions beside the status, wherever the folder has been moved to."""
    model = status.get("model_name") or status_path.parent.name
    given = entry.get("prediction_file") or f"{model}_{name}.tsv"
    return status_path.parent / Path(str(given)).name


def _check_model(folder: Path, method: str, path: Path, status: Mapping[str, Any]) -> None:
    """See that the status is of the record's method, by whose name VLMEvalKit knows the model.

    Raises:
        ReportError: it is of another.
    """
    model = status.get("model_name") or path.parent.name
    if model != method:
        raise ReportError(
            f"{path} is of the model {model}, but {folder / RECORD_NAME} beside it of the method {method}: two runs. "
            "Move VLMEvalKit's folder to the record that it belongs to, or repeat the run into a folder of its own."
        )


def _documents(
    predictions: Path, judge: str, journal: Mapping[int | str, Sequence[Answered]] | None
) -> tuple[Document, ...]:
    """The documents in the order of the data set; their field `score` is VLMEvalKit's, 0-1, where it has one.

    Args:
        journal: the run's own answers to them; None for a run that VLMEvalKit started itself.
    """
    table = prediction_table(predictions)
    scored = scored_fields(predictions, judge, list(table["index"]))
    names = [name for name in _ASKED if name in table]
    asked = [dict(zip(names, cells, strict=True)) for cells in table[names].to_numpy()]
    documents = []
    unanswered = []
    for index, prediction, question, target, fields in zip(
        *(table["index"], table["prediction"], column_of(table, "question"), column_of(table, "answer"), asked),
        strict=True,
    ):
        doc_id = int(index) if index.isdecimal() else index
        account: tuple[TokenAccount, ...] | None = None
        has_failed = FAILED in prediction
        if journal is not None:
            own = None if has_failed else _own_answer(journal.get(doc_id, ()), prediction)
            if own is None:
                unanswered.append(str(index))
                continue
            account = (own.counts(),)
        documents.append(
            Document(
                doc_id=doc_id,
                fields={"prediction": prediction, **fields, **scored.get(index, {})},
                account=account,
                answer=None if has_failed else prediction,
                failure=f"VLMEvalKit wrote `{FAILED}` and scored it" if has_failed else None,
                question=question,
                target=target,
            )
        )
    if unanswered:
        named = ", ".join(unanswered[:10]) + (f" and {len(unanswered) - 10} more" if len(unanswered) > 10 else "")
        raise ReportError(
            f"{predictions} has documents without an answer of this run: {named}; its answers.rank*.jsonl has none, or "
            "another. Remove it with every other file of this data set beside it (VLMEvalKit takes answers and scores "
            "from them) and repeat the command; what this run has answered is not asked again."
        )
    return tuple(documents)


def _own_answer(answers: Sequence[Answered], prediction: str) -> Answered | None:
    """The last of a document's answers in the journal that VLMEvalKit has as `prediction`; None where none is."""
    return next((own for own in reversed(answers) if is_prediction_of(prediction, own.text)), None)


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
