"""Reader of a finished run from the folder that lmms-eval wrote.

lmms-eval exits with code 0 if an evaluation failed, and a model may return empty answers that score zero. A run is
therefore only accepted if its results file exists and every document of every task has an answer or is recorded as
failed. Otherwise a ReportError is raised.

Runs started by other programs don't record failures. There, a blank answer without token counts can't be told from a
failure, so its cell has no score.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from vico_eval.errors import ReportError
from vico_eval.harnesses.lmms_eval.results_files import (
    Results,
    check_times,
    expected_documents,
    newest_by_task,
    samples_path,
)
from vico_eval.harnesses.lmms_eval.same_run import check_model
from vico_eval.harnesses.lmms_eval.samples import Sample, read_samples, what_is_wrong
from vico_eval.harnesses.lmms_eval.unrecorded import BLANK, blanks_count, lmms_eval_record
from vico_eval.harnesses.unrecorded import what_is_unknown
from vico_eval.runs.answers import read_journal
from vico_eval.runs.folders import check_folder, check_one_run, nothing_found, results_files
from vico_eval.runs.read import read_failures, read_record
from vico_eval.runs.results import Document, Run, TaskResult
from vico_eval.runs.schema import LMMS_EVAL, RunRecord

CACHED = (
    "its answer came from lmms-eval's response cache, `--use_cache`, and no account of this run's says which weights "
    "and libraries gave it; repeat the run without that option"
)
"""Why a document of one of our runs counts as unanswered although it has an answer."""

NO_JOURNAL = "it left no answers.rank*.jsonl, so nobody can check that its samples are its own."


def read_run(folder: Path, only: Collection[str] | None = None, *, blank_is_wrong: bool = False) -> Run:
    """Read the run in `folder`, in which every document of every task is answered or recorded as failed.

    If a folder has several results files with the same settings, the newest is used for each task.

    Args:
        folder: lmms-eval's --output_path.
        only: tasks to read; None for all.
        blank_is_wrong: count a blank answer in a run started by another program as an answer, as it was scored.

    Raises:
        ReportError: there are no results or those of several runs, settings differ between results files, a file is
            malformed, results or samples don't belong to the record, or documents lack answers; the message names task
            and documents.
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
            check_model(folder, record, path, content)
        return _own_run(folder, record, newest)
    samples = {results.task: read_samples(samples_path(results)) for results in newest}
    blank = {task: [doc_id for doc_id, one in own.items() if not one.has_answer] for task, own in samples.items()}
    failed = {task: dict.fromkeys(() if blank_is_wrong else own, BLANK) for task, own in blank.items()}
    tasks = _tasks(folder, newest, samples, failed, known_blank=blank)
    if any(document.account is not None for task in tasks.values() for document in task.documents):
        raise ReportError(
            f"{folder} has no record.json, but token accounts, so it is a run of one of this package's models that "
            "lost it, so the origin of its numbers is unknown. Put the file back, or run it again."
        )
    notes = [what_is_unknown(LMMS_EVAL)]
    if blank_is_wrong:
        notes += [blanks_count(task, len(own), len(samples[task])) for task, own in blank.items() if own]
    return Run(folder=folder, record=lmms_eval_record(folder, newest[-1]), tasks=tasks, notes=tuple(notes))


def _own_run(folder: Path, record: RunRecord, newest: list[Results]) -> Run:
    """Read a run of one of our models, comparing its samples with its journal and its failures."""
    journal = read_journal(folder, {results.task for results in newest})
    failures = read_failures(folder)
    samples: dict[str, dict[int, Sample]] = {}
    failed: dict[str, dict[int, str]] = {}
    for results in newest:
        config = results.content["configs"].get(results.task) or {}
        own = samples[results.task] = read_samples(
            samples_path(results),
            None if journal is None else journal.get(results.task, {}),
            says_what_the_model_said=not (config.get("filter_list") or config.get("auto_strip_thinking")),
        )
        failed[results.task] = {
            doc_id: failures.get((results.task, doc_id), CACHED)
            for doc_id, sample in own.items()
            if (sample.account is None if sample.has_answer else (results.task, doc_id) in failures)
        }
    return Run(
        folder=folder,
        record=record,
        tasks=_tasks(folder, newest, samples, failed),
        notes=(NO_JOURNAL,) if journal is None else (),
    )


def _tasks(
    folder: Path,
    newest: list[Results],
    samples: Mapping[str, Mapping[int, Sample]],
    failed: Mapping[str, Mapping[int, str]],
    known_blank: Mapping[str, Collection[int]] | None = None,
) -> dict[str, TaskResult]:
    """Return the tasks, by name.

    Args:
        samples: samples by task and document.
        failed: by task, why documents count as unanswered.
        known_blank: documents whose answer may be blank; None for those that failed.
    """
    tasks: dict[str, TaskResult] = {}
    problems: list[str] = []
    for results in newest:
        name, content = results.task, results.content
        known = failed[name] if known_blank is None else known_blank[name]
        if problem := what_is_wrong(name, expected_documents(results), samples[name], known):
            problems.append(problem)
            continue
        config = content["configs"].get(name) or {}
        tasks[name] = TaskResult(
            name=name,
            metrics=content["results"].get(name) or {},
            documents=_documents(samples[name], failed[name]),
            num_available=int(content["n-samples"][name]["original"]),
            version=str(content["versions"].get(name)),
            settings={key: config.get(key) for key in ("generation_kwargs", "num_fewshot", "metadata")},
            results_path=results.path,
            samples_path=samples_path(results),
        )
    if problems:
        raise ReportError(
            f"{folder} is not a complete run: {'; '.join(problems)}. lmms-eval ends with exit code 0 even then; "
            "look for the error in its log and repeat the command."
        )
    return tasks


def _documents(samples: Mapping[int, Sample], failed: Mapping[int, str]) -> tuple[Document, ...]:
    return tuple(
        Document(
            doc_id=doc_id,
            fields=sample.fields,
            account=sample.account,
            answer=None if doc_id in failed else sample.answer,
            failure=failed.get(doc_id),
            question=sample.question,
            target=sample.target,
            seconds=sample.seconds,
            said=None if doc_id in failed else sample.said,
        )
        for doc_id, sample in samples.items()
    )
