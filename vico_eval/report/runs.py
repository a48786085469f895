"""A finished run, read from the folder that lmms-eval wrote.

lmms-eval ends with exit code 0 when an evaluation failed, and a model may hand it empty answers that score zero. So a
run counts only if its results file exists and every document of every task has an answer, or is named among those that
the run went on without; all else is a ReportError.

A run that another program started has no such names. There a blank answer without token counts counts as one of them:
it can't be told from a failure, so its cell has no score.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vico_eval.errors import ReportError
from vico_eval.report.lmms_results import Results, check_times, expected_documents, newest_by_task, samples_path
from vico_eval.report.lmms_samples import Sample, read_samples, what_is_wrong
from vico_eval.report.records import (
    DocumentKey,
    RunRecord,
    TokenAccount,
    read_failures,
    read_record,
    read_side_accounts,
)
from vico_eval.report.run_files import check_folder, check_one_run, nothing_found, results_files
from vico_eval.report.unrecorded import BLANK, LMMS_EVAL, lmms_eval_record, what_is_unknown


class Document(NamedTuple):
    """One row of a benchmark, as a run answered it. Hundred thousands are made, for which dataclasses take longer."""

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
    """Of the task; empty where it isn't known."""

    settings: Mapping[str, Any]
    """What a comparison must hold fixed: generation settings and few-shot count; None where it isn't known."""

    results_path: Path
    samples_path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of one system."""

    folder: Path
    record: RunRecord
    tasks: Mapping[str, TaskResult]
    notes: tuple[str, ...] = ()
    """What a reader has to know of it besides its record."""


def read_run(folder: Path, only: Collection[str] | None = None) -> Run:
    """The run in `folder`, every document of every task answered or known to have failed.

    Where a folder holds several results files of the same settings, the newest counts for each task.

    Args:
        folder: lmms-eval's --output_path.
        only: tasks to read; None for all.

    Raises:
        ReportError: no results, or of several runs; settings that differ between results files, a malformed file, or
            documents without an answer; the message names task and documents.
    """
    check_folder(folder)
    record = read_record(folder)
    paths = results_files(folder)
    if not paths and record is None:
        raise nothing_found(folder)
    if not paths:
        raise ReportError(
            f"{folder} has no results file (<date>_results.json), so its evaluation failed or is still running; "
            "lmms-eval ends with exit code 0 either way. Look for `Error during evaluation` in its log."
        )
    check_one_run(folder, paths)
    newest = [results for results in newest_by_task(folder, paths) if only is None or results.task in only]
    if not newest:
        raise ReportError(f"{folder} has no results of {', '.join(sorted(only or ()))}.")
    if record is not None:
        for path, content in {results.path: results.content for results in newest}.items():
            check_times(folder, record, path, content)
    tasks = _read_tasks(folder, newest, goes_on_after_blanks=record is None)
    if record is not None:
        return Run(folder=folder, record=record, tasks=tasks)
    if any(document.account is not None for task in tasks.values() for document in task.documents):
        raise ReportError(
            f"{folder} has no record.json, but token accounts, so it is a run of one of this package's models that "
            "lost it, and nobody could say what produced its numbers. Put the file back, or run it again."
        )
    return Run(
        folder=folder, record=lmms_eval_record(folder, newest[-1]), tasks=tasks, notes=(what_is_unknown(LMMS_EVAL),)
    )


def _read_tasks(folder: Path, newest: list[Results], *, goes_on_after_blanks: bool) -> dict[str, TaskResult]:
    side_accounts: dict[DocumentKey, TokenAccount] | None = None
    failures = read_failures(folder)
    tasks: dict[str, TaskResult] = {}
    problems: list[str] = []
    for results in newest:
        name, content = results.task, results.content
        path = samples_path(results)
        samples = read_samples(path)
        unanswered = [doc_id for doc_id, sample in samples.items() if not sample.has_answer]
        failed = {doc_id: failures[name, doc_id] for doc_id in unanswered if (name, doc_id) in failures}
        if goes_on_after_blanks:
            failed = dict.fromkeys(unanswered, BLANK)
        if problem := what_is_wrong(name, expected_documents(results), samples, failed):
            problems.append(problem)
            continue
        if side_accounts is None and any(sample.account is None for sample in samples.values()):
            side_accounts = read_side_accounts(folder, {one.task for one in newest})
        config = content["configs"].get(name) or {}
        tasks[name] = TaskResult(
            name=name,
            metrics=content["results"].get(name) or {},
            documents=_documents(name, samples, side_accounts or {}, failed),
            num_available=int(content["n-samples"][name]["original"]),
            version=str(content["versions"].get(name)),
            settings={key: config.get(key) for key in ("generation_kwargs", "num_fewshot", "metadata")},
            results_path=results.path,
            samples_path=path,
        )
    if problems:
        raise ReportError(
            f"{folder} is not a complete run: {'; '.join(problems)}. lmms-eval ends with exit code 0 even then; "
            "look for the error in its log and repeat the command."
        )
    return tasks


def _documents(
    name: str,
    samples: Mapping[int, Sample],
    side_accounts: Mapping[DocumentKey, TokenAccount],
    failed: Mapping[int, str],
) -> tuple[Document, ...]:
    documents = []
    for doc_id, sample in samples.items():
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
