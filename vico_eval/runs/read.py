"""The reader of a run's own files, and of its toolkit's results through that toolkit's reader."""

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from vico_eval.errors import ReportError
from vico_eval.runs.folders import check_folder, check_one_run, nothing_found, results_files, status_files
from vico_eval.runs.json_text import object_or_none, read_json, read_lines, validate
from vico_eval.runs.results import Run
from vico_eval.runs.schema import (
    LMMS_EVAL,
    RECORD_NAME,
    RECORD_VERSION,
    VLMEVALKIT,
    DocumentKey,
    FailureLine,
    RunRecord,
)

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
        ReportError: it doesn't fit the schema, or is of another version.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    value = read_json(path)
    if (version := value.get("version")) != RECORD_VERSION:
        raise ReportError(
            f"{path} is a record of version {version!r}; expected {RECORD_VERSION}. Another release of vico-eval wrote "
            "it: report the run with that release, or repeat it with this one."
        )
    return validate(RunRecord, value, str(path))


def read_failures(folder: Path) -> dict[DocumentKey, str]:
    """Why documents have no answer, by task and document: the last reason where one failed more than once.

    A document that was answered later is still among them.

    Raises:
        ReportError: a line of another schema.
    """
    failures = {}
    for path in sorted(folder.glob("failures.rank*.jsonl")):
        for place, text in read_lines(path):
            if (value := object_or_none(text)) is not None:
                line = validate(FailureLine, value, place)
                failures[line.task, line.doc_id] = line.reason
    return failures
