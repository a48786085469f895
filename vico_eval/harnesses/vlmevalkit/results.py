"""Reader of a finished VLMEvalKit run from the folder that `vico-eval vlmeval run` or VLMEvalKit itself wrote.

VLMEvalKit logs an error in a data set and continues with the next, so a run is only accepted if every data set has a
score and every prediction is an answer of ours. For runs started by VLMEvalKit itself, data sets without a score are
left out, and every prediction that it doesn't mark as a failure is an answer.

Format: ms-vlmeval 0.0.20, `<run>/<model>/status.json`, `<model>_<data set>.xlsx` or .tsv with the predictions, and
beside it a file with each document's score, whose name depends on the kind of data set.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vico_eval.errors import ReportError
from vico_eval.harnesses.unrecorded import what_is_unknown
from vico_eval.harnesses.vlmevalkit.tables import FAILED, column_of, is_prediction_of, prediction_table, scored_fields
from vico_eval.harnesses.vlmevalkit.unrecorded import vlmevalkit_record
from vico_eval.runs.answers import Answered, read_journal
from vico_eval.runs.folders import check_one_run, status_files
from vico_eval.runs.json_text import read_json
from vico_eval.runs.read import read_record
from vico_eval.runs.results import Document, Run, TaskResult
from vico_eval.runs.schema import RECORD_NAME, VLMEVALKIT, AnswerSeconds, TokenAccount

_ASKED = ("category", "l2_category", "l2-category", "duration", "image_path", "split")
"""Columns of the predictions that scores and categories may be computed from."""


def read_run(folder: Path, only: Collection[str] | None = None, *, blank_is_wrong: bool = False) -> Run:
    """Read the run in `folder`, in which we answered every document and every data set is scored.

    Args:
        folder: VLMEvalKit's --work-dir.
        only: data sets to read; None for all.
        blank_is_wrong: has no effect here, because VLMEvalKit marks failures.

    Raises:
        ReportError: there is no status file or several, or a data set lacks a score or answers; the message names it.
    """
    found = status_files(folder)
    if not found:
        raise ReportError(f"{folder} has no file status.json; expected the one that VLMEvalKit writes for a run.")
    check_one_run(folder, found)
    (status_path,) = found
    status = read_json(status_path)
    own = read_record(folder)
    record = own or vlmevalkit_record(folder, status_path, status)
    journal = None if own is None else read_journal(folder, only) or {}
    if own is not None:
        _check_model(folder, own.method, status_path, status)
    tasks = {}
    notes = [] if own else [what_is_unknown(VLMEVALKIT)]
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
    """Return VLMEvalKit's status of data set `name`.

    Raises:
        ReportError: it has no score; the message says why.
    """
    path = model_folder / "status.json"
    status: dict[str, Any] = _datasets(path).get(name, {})
    reason = status.get("error_message") or status.get("skip_reason")
    if reason or not status.get("metrics"):
        raise ReportError(
            f"VLMEvalKit has no score of {name} in {path}: {reason or status.get('status', 'it was not begun')}. "
            "Its log is in the folder logs beside it; fix the cause and repeat the command."
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
    """Return the file of a data set's predictions beside the status, also after the folder was moved."""
    model = status.get("model_name") or status_path.parent.name
    given = entry.get("prediction_file") or f"{model}_{name}.tsv"
    return status_path.parent / Path(str(given)).name


def _check_model(folder: Path, method: str, path: Path, status: Mapping[str, Any]) -> None:
    """Check that the status belongs to the record's method, which is the model's name in VLMEvalKit.

    Raises:
        ReportError: it belongs to another method.
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
    """Return the documents in the data set's order; the field `score` is VLMEvalKit's score, 0-1, if there is one.

    Args:
        journal: the run's answers to them; None for a run that VLMEvalKit started itself.
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
        took: AnswerSeconds | None = None
        said = prediction
        has_failed = FAILED in prediction
        if journal is not None:
            own = None if has_failed else _own_answer(journal.get(doc_id, ()), prediction)
            if own is None:
                unanswered.append(str(index))
                continue
            account, took, said = (own.counts(),), own.took(), own.text
        documents.append(
            Document(
                doc_id=doc_id,
                fields={"prediction": prediction, **fields, **scored.get(index, {})},
                account=account,
                answer=None if has_failed else prediction,
                failure=f"VLMEvalKit wrote `{FAILED}` and scored it" if has_failed else None,
                question=question,
                target=target,
                seconds=None if took is None else (took,),
                said=None if has_failed else (said,),
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
    """Return the journal's last answer to a document that equals VLMEvalKit's `prediction`; None without one."""
    return next((own for own in reversed(answers) if is_prediction_of(prediction, own.text)), None)
