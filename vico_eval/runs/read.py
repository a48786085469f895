"""Read a run's own files, and its toolkit's results through that toolkit's reader.

Answers have three readers: `read_journal` (`vico_eval.runs.answers`) to verify samples files, `read_accounts` to sum up
a finished run's costs, and `vico_eval.runs.journal.Journal` to continue a run.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import ValidationError

from vico_eval.errors import ReportError
from vico_eval.runs.folders import (
    ANSWERS,
    FAILURES,
    check_folder,
    check_one_run,
    journal_files,
    nothing_found,
    results_files,
    status_files,
)
from vico_eval.runs.json_text import object_or_none, read_json, read_lines, validate
from vico_eval.runs.results import Run
from vico_eval.runs.schema import (
    LMMS_EVAL,
    RECORD_NAME,
    REQUEST_NAME,
    VERSIONS,
    VLMEVALKIT,
    DocumentKey,
    RunRecord,
    RunRequest,
    StoredFailure,
    TokenAccount,
)

Accounts = dict[str, dict[tuple[str, int | str], TokenAccount]]
"""Accounts by task, then by split and document."""

READERS = {
    LMMS_EVAL: "vico_eval.harnesses.lmms_eval.results:read_run",
    VLMEVALKIT: "vico_eval.harnesses.vlmevalkit.results:read_run",
}
"""Reader of each harness's results, as `module:function`, so that reading a run imports only its harness."""


class Reader(Protocol):
    """Reads a run with its toolkit's results; arguments and errors as in `read_run`."""

    def __call__(self, folder: Path, only: Collection[str] | None = None, *, blank_is_wrong: bool = False) -> Run: ...


def read_run(folder: Path, only: Collection[str] | None = None, *, blank_is_wrong: bool = False) -> Run:
    """Read the run in `folder` with the reader of the toolkit in its record; without a record, the files decide.

    Args:
        folder: lmms-eval's --output_path or VLMEvalKit's --work-dir.
        only: tasks to read; None for all.
        blank_is_wrong: take a blank answer in a run that another program started for an answer, as it was scored, and
            not for a failure. VLMEvalKit marks documents without an answer.

    Raises:
        ReportError: there is no finished run, several runs, or files of both toolkits; also the errors of the toolkit's
            reader.
    """
    check_folder(folder)
    record = read_record(folder)
    harness = _harness_by_files(folder) if record is None else record.harness
    if harness not in READERS:
        raise ReportError(f"{folder / RECORD_NAME} names harness {harness!r}; expected {' or '.join(READERS)}.")
    module, _, function = READERS[harness].partition(":")
    reader = cast(Reader, getattr(import_module(module), function))
    return reader(folder, only, blank_is_wrong=blank_is_wrong)


def _harness_by_files(folder: Path) -> str:
    statuses, results = status_files(folder), results_files(folder)
    if not statuses and not results:
        raise nothing_found(folder)
    check_one_run(folder, [*statuses, *results])
    if statuses and results:
        raise ReportError(
            f"{folder} holds results of lmms-eval ({results[-1].name}) and of VLMEvalKit ({statuses[0].name}). "
            "Expected results of one toolkit; move the others to another folder."
        )
    return VLMEVALKIT if statuses else LMMS_EVAL


def read_record(folder: Path) -> RunRecord | None:
    """Read the record of the run in `folder`; None if there is none because another program started the run.

    Raises:
        ReportError: the record can't be read, doesn't fit the schema, or has an unsupported version.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    value = read_json(path)
    if (version := value.get("version")) not in VERSIONS:
        expected = " or ".join(map(str, VERSIONS))
        raise ReportError(
            f"{path} has version {version!r}; expected {expected}. Another release of vico-eval wrote "
            "it: report the run with that release, or repeat it with this one."
        )
    return validate(RunRecord, value, str(path))


def read_request(folder: Path) -> RunRequest | None:
    """Read the request that `vico-eval run` wrote to `folder`; None if it is missing or unreadable."""
    try:
        value = read_json(folder / REQUEST_NAME)
        if value.keys() == {"arguments", "inputs", "cells"}:  # version 1, where `inputs` is a digest of the code
            del value["inputs"]
            value |= {"version": 1, "versions": None, "checkpoints": None}
        return validate(RunRequest, value, str(folder / REQUEST_NAME))
    except ReportError:
        return None


def read_failures(folder: Path) -> dict[DocumentKey, str]:
    """Read the reasons for failed documents, by task and document; the last reason if a document failed repeatedly.

    Documents that were answered later are included.

    Raises:
        ReportError: a line doesn't fit the schema.
    """
    failures = {}
    for path in journal_files(folder, FAILURES):
        for place, text in read_lines(path):
            if (value := object_or_none(text)) is not None:
                line = validate(StoredFailure, value, place)
                failures[line.task, line.doc_id] = line.reason
    return failures


def read_accounts(folder: Path) -> Accounts | None:
    """Read the accounts of the run in `folder`, the last one of each document; None if it has no journal.

    Lines that were cut off or don't fit the schema are skipped, so their documents may be missing.
    """
    if not journal_files(folder, ANSWERS):
        return None
    accounts: Accounts = {}
    for line in _document_lines(folder, ANSWERS):
        with suppress(ValidationError):
            account = TokenAccount.model_validate(line.get("account"))
            accounts.setdefault(line["task"], {})[line["split"], line["doc_id"]] = account
    return accounts


def unfinished_tasks(folder: Path, accounts: Accounts) -> dict[str, tuple[int, int | None]]:
    """Tasks with documents left: the number finished and the total, which is None if unknown.

    A document is finished once it has an answer or has failed. The harness reports the total only at the end.

    Args:
        folder: the run's folder.
        accounts: the result of `read_accounts`.
    """
    ended = {task: set(answered) for task, answered in accounts.items()}
    for line in _document_lines(folder, FAILURES):
        if line["task"] in ended:
            ended[line["task"]].add((line["split"], line["doc_id"]))
    expected, finished = _documents_by_lmms_eval(folder), _finished_by_vlmevalkit(folder)
    return {
        task: (len(documents), expected.get(task))
        for task, documents in sorted(ended.items())
        if len(documents) != expected.get(task) and task not in finished
    }


def _document_lines(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    for file in journal_files(folder, kind):
        for text in file.read_bytes().split(b"\n"):
            line = object_or_none(text) or {}
            if {"task", "split", "doc_id"} <= line.keys() and isinstance(line["doc_id"], (int, str)):
                yield line


def _documents_by_lmms_eval(folder: Path) -> dict[str, int]:
    """Number of documents in each task's newest results; files are named by date."""
    counts = {}
    for file in sorted(folder.rglob("*_results.json"), key=lambda file: file.name):
        results = object_or_none(file.read_bytes()) or {}
        samples, config = results.get("n-samples"), results.get("config")
        if not isinstance(samples, dict) or not isinstance(config, dict):
            continue  # a task's own file, or one that was cut off
        for task, numbers in samples.items():
            with suppress(KeyError, TypeError, ValueError):
                left = int(numbers["original"]) - int(config.get("offset") or 0)
                counts[task] = min(int(numbers["effective"]), left)
    return counts


def _finished_by_vlmevalkit(folder: Path) -> set[str]:
    """Data sets that VLMEvalKit has scored, which happens once every document has an answer."""
    finished = set()
    for file in folder.glob("*/status.json"):
        datasets: Mapping[str, Any] | None = (object_or_none(file.read_bytes()) or {}).get("datasets")
        for name, status in datasets.items() if isinstance(datasets, dict) else ():
            if isinstance(status, dict) and status.get("metrics"):
                finished.add(name)
    return finished
