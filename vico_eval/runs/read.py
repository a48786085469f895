"""The reader of a run's own files, and of its toolkit's results through that toolkit's reader.

Answers are read by what they are for: `read_journal` (`vico_eval.runs.answers`) holds samples against them,
`read_accounts` sums up what a finished run cost, and `vico_eval.runs.journal.Journal` goes on with them.
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
"""By task, and by split and document."""

READERS = {
    LMMS_EVAL: "vico_eval.harnesses.lmms_eval.results:read_run",
    VLMEVALKIT: "vico_eval.harnesses.vlmevalkit.results:read_run",
}
"""Who reads a harness's results, as `module:function`: who reads a run imports no other harness."""


class Reader(Protocol):
    """Reads a run with its toolkit's results; arguments and errors as `read_run`."""

    def __call__(self, folder: Path, only: Collection[str] | None = None, *, blank_is_wrong: bool = False) -> Run: ...


def read_run(folder: Path, only: Collection[str] | None = None, *, blank_is_wrong: bool = False) -> Run:
    """The run in `folder`, by the toolkit that its record names; without one, by whose files are there.

    Args:
        folder: lmms-eval's --output_path or VLMEvalKit's --work-dir.
        only: tasks to read; None for all.
        blank_is_wrong: whether a blank answer of a run that another program started is an answer, as it was scored.
            VLMEvalKit marks what it has no answer to.

    Raises:
        ReportError: no finished run, several, or files of both toolkits; as the toolkit's reader.
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
            "Expected those of one toolkit; move one's to a folder of its own."
        )
    return VLMEVALKIT if statuses else LMMS_EVAL


def read_record(folder: Path) -> RunRecord | None:
    """The record of the run in `folder`; None where it left none, since another program started it.

    Raises:
        ReportError: it can't be read, doesn't fit the schema, or is of another version.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    value = read_json(path)
    if (version := value.get("version")) not in VERSIONS:
        expected = " or ".join(map(str, VERSIONS))
        raise ReportError(
            f"{path} is a record of version {version!r}; expected {expected}. Another release of vico-eval wrote "
            "it: report the run with that release, or repeat it with this one."
        )
    return validate(RunRecord, value, str(path))


def read_request(folder: Path) -> RunRequest | None:
    """What `vico-eval run` was to do in `folder`; None where nothing readable says it."""
    try:
        value = read_json(folder / REQUEST_NAME)
        if value.keys() == {"arguments", "inputs", "cells"}:  # of version 1; `inputs` is a digest of code as it was
            del value["inputs"]
            value |= {"version": 1, "versions": None, "checkpoints": None}
        return validate(RunRequest, value, str(folder / REQUEST_NAME))
    except ReportError:
        return None


def read_failures(folder: Path) -> dict[DocumentKey, str]:
    """Why documents have no answer, by task and document: the last reason where one failed more than once.

    A document that was answered later is still among them.

    Raises:
        ReportError: a line of another schema.
    """
    failures = {}
    for path in journal_files(folder, FAILURES):
        for place, text in read_lines(path):
            if (value := object_or_none(text)) is not None:
                line = validate(StoredFailure, value, place)
                failures[line.task, line.doc_id] = line.reason
    return failures


def read_accounts(folder: Path) -> Accounts | None:
    """What each answer of the run in `folder` cost, the last one of a document; None where it has no journal.

    A line that was cut off, or is of another kind, is none: its document is then missing.
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
    """Tasks that have documents left, with how many have ended and how many there are; None where that is not known.

    A document has ended when it has an answer or has failed. How many there are is what the harness has said, which it
    does at the end.

    Args:
        folder: of the run.
        accounts: of `read_accounts`.
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
    """How many documents each task's newest results count; files are named by their date."""
    counts = {}
    for file in sorted(folder.rglob("*_results.json"), key=lambda file: file.name):
        results = object_or_none(file.read_bytes()) or {}
        samples, config = results.get("n-samples"), results.get("config")
        if not isinstance(samples, dict) or not isinstance(config, dict):
            continue  # of a task's own, or half a file
        for task, numbers in samples.items():
            with suppress(KeyError, TypeError, ValueError):
                left = int(numbers["original"]) - int(config.get("offset") or 0)
                counts[task] = min(int(numbers["effective"]), left)
    return counts


def _finished_by_vlmevalkit(folder: Path) -> set[str]:
    """Data sets that VLMEvalKit has scored, which it does once every document has an answer."""
    finished = set()
    for file in folder.glob("*/status.json"):
        datasets: Mapping[str, Any] | None = (object_or_none(file.read_bytes()) or {}).get("datasets")
        for name, status in datasets.items() if isinstance(datasets, dict) else ():
            if isinstance(status, dict) and status.get("metrics"):
                finished.add(name)
    return finished
