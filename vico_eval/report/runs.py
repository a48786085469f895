"""A finished run, read from the folder that lmms-eval wrote.

lmms-eval ends with exit code 0 when an evaluation failed, and a model may hand it empty answers that score zero. So a
run counts only if its results file exists and every document of every task has an answer, or is named among those that
the run went on without; all else is a ReportError.

Format: lmms-eval 0.7.3, `<run>/[<model folder>/]<date>_results.json` and `<date>_samples_<task>.jsonl`.
"""

import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vico_eval.errors import ReportError
from vico_eval.report.records import (
    DocumentKey,
    RunRecord,
    TokenAccount,
    read_failures,
    read_json,
    read_json_lines,
    read_record,
    read_side_accounts,
    validate,
)

# Tasks write files of their own whose names also end in `_results.json`; only lmms-eval's start with its date.
_RESULTS_NAME = re.compile(r"(\d{8}_\d{6})_results\.json")

# What must agree before two results files of a folder may be read as one run. Batch size, devices and tasks may differ.
_SETTINGS = ("model", "model_args", "limit", "offset", "gen_kwargs", "random_seed", "numpy_seed", "torch_seed")

# What lmms-eval writes into every samples line; the other keys are metrics.
_LINE_KEYS = frozenset(
    {"doc_id", "target", "filtered_resps", "resps", "token_counts", "doc_hash", "input", "input_media"}
)

_NAMED_DOCUMENTS = 10

# Dates have whole seconds.
_CLOCK_STEP = timedelta(seconds=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One row of a benchmark, as a run answered it."""

    doc_id: int | str
    fields: Mapping[str, Any]
    """The metrics' fields of the samples line: a number, or an object that holds one."""

    account: tuple[TokenAccount, ...] | None
    """One for each of the document's requests; None where a run left none."""

    answer: str | None = None
    """What the model said, as it was scored; several answers are joined by line breaks. None where it failed."""

    failure: str | None = None
    """Why it has no answer, where the run went on without. lmms-eval has scored it as a blank one."""

    question: str = ""
    """The text that was asked, as far as the toolkit kept it."""

    target: str = ""
    """What is right, as text; several right answers are joined by line breaks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """One lmms-eval task (never a group) of a run."""

    name: str
    metrics: Mapping[str, Any]
    """lmms-eval's aggregated numbers, under keys such as `exact_match,none`."""

    documents: tuple[Document, ...]
    """Ascending by doc_id, whichever process answered them."""

    num_available: int
    """Documents the task has; a limited run answers fewer."""

    version: str
    settings: Mapping[str, Any]
    """What a comparison must hold fixed: generation settings and few-shot count."""

    results_path: Path
    samples_path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of one system."""

    folder: Path
    record: RunRecord
    tasks: Mapping[str, TaskResult]


class _Sample(NamedTuple):
    """What is kept of a samples line. The line itself would take several times the memory, and the time to make it."""

    has_answer: bool
    answer: str
    account: tuple[TokenAccount, ...] | None
    fields: Mapping[str, Any]
    question: str
    target: str


def read_run(folder: Path, only: Collection[str] | None = None) -> Run:
    """The run in `folder`, every document of every task answered or known to have failed.

    Where a folder holds several results files of the same settings, the newest counts for each task.

    Args:
        folder: lmms-eval's --output_path.
        only: tasks to read; None for all.

    Raises:
        ReportError: no record or results, settings that differ between results files, a malformed file, or documents
            without an answer; the message names task and documents.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder} is not a folder. Expected a run: what lmms-eval got as --output_path.")
    record = read_record(folder)
    side_accounts: dict[DocumentKey, TokenAccount] | None = None
    failures = read_failures(folder)
    tasks: dict[str, TaskResult] = {}
    problems: list[str] = []
    newest = [entry for entry in _newest_by_task(folder) if only is None or entry[1] in only]
    if not newest:
        raise ReportError(f"{folder} has no results of {', '.join(sorted(only or ()))}.")
    for path, results in {path: results for path, _, results in newest}.items():
        _check_times(folder, record, path, results)
    for results_path, name, results in newest:
        samples_path = _samples_path(results_path, name)
        lines = _sample_lines(samples_path)
        failed = {
            doc_id: failures[name, doc_id]
            for doc_id, sample in lines.items()
            if (name, doc_id) in failures and not sample.has_answer
        }
        problem = _unanswered(name, _expected_documents(results, name, results_path), lines, failed)
        if problem:
            problems.append(problem)
            continue
        if side_accounts is None and any(sample.account is None for sample in lines.values()):
            side_accounts = read_side_accounts(folder)
        config = results["configs"].get(name) or {}
        tasks[name] = TaskResult(
            name=name,
            metrics=results["results"].get(name) or {},
            documents=_read_documents(name, lines, side_accounts or {}, failed),
            num_available=int(results["n-samples"][name]["original"]),
            version=str(results["versions"].get(name)),
            settings={key: config.get(key) for key in ("generation_kwargs", "num_fewshot", "metadata")},
            results_path=results_path,
            samples_path=samples_path,
        )
    if problems:
        raise ReportError(
            f"{folder} is not a complete run: {'; '.join(problems)}. lmms-eval ends with exit code 0 even then; "
            "look for the error in its log and repeat the command."
        )
    return Run(folder=folder, record=record, tasks=tasks)


def _newest_by_task(folder: Path) -> list[tuple[Path, str, dict[str, Any]]]:
    paths = sorted(
        (path for path in folder.rglob("*_results.json") if _RESULTS_NAME.fullmatch(path.name)),
        key=lambda path: (path.name, str(path)),
    )
    if not paths:
        raise ReportError(
            f"{folder} has no results file (<date>_results.json), so its evaluation failed or is still running; "
            "lmms-eval ends with exit code 0 either way. Look for `Error during evaluation` in its log."
        )
    newest: dict[str, tuple[Path, str, dict[str, Any]]] = {}
    first: tuple[Path, dict[str, Any]] | None = None
    for path in paths:
        results = read_json(path)
        for key in ("results", "n-samples", "config", "configs", "versions"):
            if not isinstance(results.get(key), dict):
                raise ReportError(f"{path} has no object `{key}`; expected a results file of lmms-eval 0.7.3 or newer.")
        settings = {key: results["config"].get(key) for key in _SETTINGS}
        if first and settings != first[1]:
            different = ", ".join(key for key in _SETTINGS if settings[key] != first[1][key])
            raise ReportError(
                f"{folder} holds results of different settings: {first[0].name} and {path.name} differ in {different}. "
                "Give each run its own --output_path."
            )
        first = first or (path, settings)
        for name in results["n-samples"]:
            newest[name] = (path, name, results)
    if not newest:
        raise ReportError(f"{paths[-1]} lists no task under `n-samples`; nothing was evaluated.")
    return [newest[name] for name in sorted(newest)]


def _check_times(folder: Path, record: RunRecord, path: Path, results: dict[str, Any]) -> None:
    """Refuses results that another run left in the record's folder, such as those of the run before a failed one, or of
    one under other conditions.

    lmms-eval takes its date before it loads the model and its total time when it saves, so a run's own record was
    started in between.
    """
    name = (results["config"].get("resolved_cli_args") or {}).get("timezone")
    total = results.get("total_evaluation_time_seconds")
    zone = _zone(name)
    if zone is None or not total:
        return  # called from Python rather than from the command line, or a zone that this machine doesn't know
    try:
        begun = datetime.strptime(str(results.get("date")), "%Y%m%d_%H%M%S").replace(tzinfo=zone)
        saved = begun + timedelta(seconds=float(total))
    except ValueError as error:
        raise ReportError(f"{path} has times that can't be read: {error}.") from error
    starts = (record.started, *record.continued)
    if not any(begun - _CLOCK_STEP <= start <= saved + _CLOCK_STEP for start in starts):
        raise ReportError(
            f"{folder} has a record of a run that started at {starts[-1].isoformat()}, but its results "
            f"({path.name}) are of a run from {begun.isoformat()} to {saved.isoformat(timespec='seconds')}. "
            "The later run failed or was another model's; repeat it into a folder of its own."
        )


def _zone(name: str | None) -> tzinfo | None:
    if name == "Asia/Singapore":
        return timezone(timedelta(hours=8))  # lmms-eval's default; a machine without zone data must know it too
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def _expected_documents(results: dict[str, Any], name: str, path: Path) -> range:
    counts = results["n-samples"][name]
    offset = results["config"].get("offset") or 0
    try:
        original, effective = int(counts["original"]), int(counts["effective"])
        expected = range(int(offset), min(int(offset) + effective, original))
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path}: `n-samples.{name}` is {counts!r}; expected `original` and `effective`.") from error
    return expected


def _samples_path(results_path: Path, name: str) -> Path:
    path = results_path.with_name(f"{results_path.name.removesuffix('_results.json')}_samples_{name}.jsonl")
    if not path.is_file():
        raise ReportError(
            f"{path} is missing, so it can't be checked that every document of {name} has an answer. "
            "Run lmms-eval with --log_samples."
        )
    return path


def _sample_lines(path: Path) -> dict[int, _Sample]:
    """What a samples file says of each document, by document."""
    lines: dict[int, _Sample] = {}
    for place, line in read_json_lines(path):
        doc_id = line.get("doc_id")
        if not isinstance(doc_id, int):
            raise ReportError(f"{place}: `doc_id` is {doc_id!r}; expected an integer.")
        if doc_id in lines:
            raise ReportError(f"{place} is the second line of document {doc_id}; expected one a document.")
        lines[doc_id] = _read_sample(place, line)
    return dict(sorted(lines.items()))


def _read_sample(place: str, line: Mapping[str, Any]) -> _Sample:
    raw = _raw_accounts(line)
    account = None
    if None not in raw:
        account = tuple([validate(TokenAccount, value, f"{place}, `token_counts`") for value in raw])
    return _Sample(
        has_answer=_has_answer(line),
        answer=_answer(line),
        account=account,
        fields={key: value for key, value in line.items() if key not in _LINE_KEYS},
        question=_text(line.get("input")),
        target=_text(line.get("target")),
    )


def _unanswered(
    name: str,
    expected: Iterable[int],
    lines: Mapping[int, _Sample],
    failed: Collection[int],
) -> str | None:
    """What is wrong with a task's answers, in words; None if nothing is."""
    wanted = set(expected)
    problems = []
    if not wanted:
        problems.append("it has no documents")
    if missing := sorted(wanted - set(lines)):
        problems.append(f"{_documents(missing)} not in the samples file")
    if strange := sorted(set(lines) - wanted):
        problems.append(f"{_documents(strange)} not expected")
    known = wanted - set(failed)
    if blank := [doc_id for doc_id, sample in lines.items() if doc_id in known and not sample.has_answer]:
        problems.append(f"{_documents(blank)} without an answer")
    return f"{name} ({len(wanted)} documents expected): {', '.join(problems)}" if problems else None


def _documents(doc_ids: list[int]) -> str:
    named = ", ".join(map(str, doc_ids[:_NAMED_DOCUMENTS]))
    more = f" and {len(doc_ids) - _NAMED_DOCUMENTS} more" if len(doc_ids) > _NAMED_DOCUMENTS else ""
    return f"document{'s' if len(doc_ids) > 1 else ''} {named}{more}"


def _has_answer(line: Mapping[str, Any]) -> bool:
    # `resps` is what the model said before any filter; lmms-eval leaves it out where the filter changed nothing.
    answers = _flatten(line.get("resps", line.get("filtered_resps")))
    if not answers or not all(isinstance(answer, str) for answer in answers):
        return False
    if _generated(line):
        return True  # a model may end at once: a blank answer whose tokens were counted is an answer
    counted = any(line.get("token_counts") or [])
    # lmms-eval writes a missing answer as the text "None"; a model that really said so has token counts.
    return all(str(answer).strip() and (counted or answer != "None") for answer in answers)


def _answer(line: Mapping[str, Any]) -> str:
    """The answer after the task's filter, which is what its scorer saw."""
    return "\n".join(map(str, _flatten(line.get("filtered_resps", line.get("resps")))))


def _generated(line: Mapping[str, Any]) -> bool:
    """Whether every request of the document has an account with tokens that the model wrote."""
    accounts = _raw_accounts(line)
    return all(isinstance(account, dict) and account.get("generated_tokens", 0) > 0 for account in accounts)


def _flatten(value: object) -> list[object]:
    return [item for part in value for item in _flatten(part)] if isinstance(value, list) else [value]


def _raw_accounts(line: Mapping[str, Any]) -> list[object]:
    """The accounts inside a samples line, one for each request of the document; None where a request has none."""
    counts = line.get("token_counts") or [None]
    return [entry.get("account") if isinstance(entry, dict) else None for entry in counts]


def _read_documents(
    name: str,
    lines: Mapping[int, _Sample],
    side_accounts: Mapping[DocumentKey, TokenAccount],
    failed: Mapping[int, str],
) -> tuple[Document, ...]:
    documents = []
    for doc_id, sample in lines.items():
        account = sample.account
        if account is None and (name, doc_id) in side_accounts:
            account = (side_accounts[name, doc_id],)
        failure = failed.get(doc_id)
        documents.append(
            Document(
                doc_id=doc_id,
                fields=sample.fields,
                account=account,
                answer=sample.answer if failure is None else None,
                failure=failure,
                question=sample.question,
                target=sample.target,
            )
        )
    return tuple(documents)


def _text(value: object) -> str:
    # All runs of a table have the same questions: one copy of each is enough.
    return sys.intern("\n".join(["" if item is None else str(item) for item in _flatten(value)]))
