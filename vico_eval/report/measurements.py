"""Finished runs as two frames: one line a run and benchmark, one line a run and document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.benchmarks import Benchmark
from vico_eval.report.records import RunRecord
from vico_eval.report.runs import Document, Run, TaskResult

_DOCUMENT_COLUMNS = ("row", "run", "benchmark", "task", "doc_id", "score", "answer", "media")
_COUNTS = ("tiles", "compressed_tiles", "visual_tokens", "visual_tokens_uncompressed", "layer_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What the runs of a table measured, unrounded.

    `cells` has the columns row, run (a number), benchmark, score (0-100; NaN where a document failed), documents (their
    number), num_available, without_account (their number), failed (their number), failure (the first one's reason),
    source, results, samples, and the summed token counts tiles, compressed_tiles, visual_tokens,
    visual_tokens_uncompressed, layer_tokens (visual tokens of a layer, mean over layers), which are NaN unless every
    document has an account.

    `documents` has row, run, benchmark, task, doc_id, score (0-100; NaN where the benchmark has none by document),
    answer (text; None where the document failed) and media (digest of its pictures, empty where it has none; None where
    the run doesn't say).
    """

    cells: pd.DataFrame
    documents: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedRun:
    """A run whose documents are counted, and gone: all documents of all runs at once would take gigabytes."""

    row: str
    """Its row's title."""

    folder: Path
    record: RunRecord
    tasks: tuple[str, ...]
    """All that it has, of the table or not."""

    counts: Mapping[str, "_Counts"]
    """By title of the benchmark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    """What a run says of a benchmark."""

    missing: tuple[str, ...] = ()
    """Tasks that the run lacks; then the rest is empty."""

    tasks: tuple[TaskResult, ...] = ()
    """Less their documents."""

    doc_ids: tuple[list[int | str], ...] = ()
    """By task."""

    cell: Mapping[str, object] = field(default_factory=dict)
    documents: Mapping[str, list[Any]] = field(default_factory=dict)
    """Columns of the documents' frame."""


def count_run(row: str, run: Run, benchmarks: Sequence[Benchmark]) -> CountedRun:
    """What a run, of the row of this title, says of each benchmark that it has a task of.

    Raises:
        ReportError: a metric or a document's score is not what the benchmark needs.
    """
    counts = {}
    for benchmark in benchmarks:
        column = benchmark.of(run.record.harness)
        names = () if column is None else column.tasks
        tasks = [run.tasks[name] for name in names if name in run.tasks]
        if column is None or not tasks:
            continue
        if missing := tuple(name for name in names if name not in run.tasks):
            counts[benchmark.title] = _Counts(missing=missing)
            continue
        counts[benchmark.title] = _Counts(
            tasks=tuple(replace(task, documents=()) for task in tasks),
            doc_ids=tuple([document.doc_id for document in task.documents] for task in tasks),
            cell=_cell(column, tasks),
            documents=_document_columns(column, tasks),
        )
    return CountedRun(row=row, folder=run.folder, record=run.record, tasks=tuple(run.tasks), counts=counts)


def measure(runs: Sequence[CountedRun], benchmarks: Sequence[Benchmark]) -> Measurements:
    """What `runs` measured on `benchmarks`.

    Raises:
        ReportError: a benchmark was run by another toolkit, on other documents or at another task version by one run
            than by another, or no run has any of the benchmarks.
    """
    cells: list[dict[str, object]] = []
    documents: dict[str, list[Any]] = {name: [] for name in _DOCUMENT_COLUMNS}
    notes: list[str] = []
    for benchmark in benchmarks:
        answered = []
        for number, run in enumerate(runs):
            counts = run.counts.get(benchmark.title)
            if counts is not None and counts.missing:
                missing = ", ".join(counts.missing)
                notes.append(
                    f"{run.row}: {benchmark.title} counts as missing, since {run.folder.name} lacks {missing}."
                )
            elif counts is not None:
                answered.append((number, run, counts))
        _check_harness(benchmark, [run for _, run, _ in answered])
        _check_repeats(benchmark, [run for _, run, _ in answered])
        notes.extend(_condition_notes([run for _, run, _ in answered]))
        notes.extend(_comparison_notes([(run, counts) for _, run, counts in answered]))
        for number, run, counts in answered:
            cells.append({"row": run.row, "run": number, **counts.cell})
            num_documents = len(counts.documents["doc_id"])
            for name, value in (("row", run.row), ("run", number), ("benchmark", benchmark.title)):
                documents[name].extend([value] * num_documents)
            for name, values in counts.documents.items():
                documents[name].extend(values)
    if not cells:
        found = sorted({name for run in runs for name in run.tasks})
        wanted = [name for benchmark in benchmarks for name in benchmark.tasks]
        raise ReportError(
            f"No run has a benchmark of this table. It needs the tasks {', '.join(wanted)}; "
            f"the runs have {', '.join(found) or 'none'}."
        )
    return Measurements(cells=pd.DataFrame(cells), documents=pd.DataFrame(documents), notes=tuple(dict.fromkeys(notes)))


def _cell(benchmark: Benchmark, tasks: Sequence[TaskResult]) -> dict[str, object]:
    documents = [document for task in tasks for document in task.documents]
    failures = [document.failure for document in documents if document.failure is not None]
    return {
        "benchmark": benchmark.title,
        # The harness has scored failed documents as blank answers: wrong, or right by chance.
        "score": float("nan") if failures else benchmark.conversion.score(tasks),
        "documents": len(documents),
        "num_available": sum(task.num_available for task in tasks),
        "without_account": sum(document.account is None for document in documents),
        "failed": len(failures),
        "failure": failures[0] if failures else "",
        "source": benchmark.conversion.source,
        "results": tuple(sorted({str(task.results_path) for task in tasks})),
        "samples": tuple(str(task.samples_path) for task in tasks),
    } | _counts(documents)


def _counts(documents: Sequence[Document]) -> dict[str, float]:
    totals = dict.fromkeys(_COUNTS, 0.0)
    for document in documents:
        if document.account is None:
            return dict.fromkeys(_COUNTS, float("nan"))
        for account in document.account:
            totals["tiles"] += account.tiles
            totals["compressed_tiles"] += account.compressed_tiles
            totals["visual_tokens"] += account.visual_tokens
            totals["visual_tokens_uncompressed"] += account.visual_tokens_uncompressed
            totals["layer_tokens"] += account.mean_layer_tokens
    return totals


def _document_columns(benchmark: Benchmark, tasks: Sequence[TaskResult]) -> dict[str, list[Any]]:
    documents = [document for task in tasks for document in task.documents]
    failed = any(document.failure is not None for document in documents)
    scores = {} if failed else benchmark.conversion.document_scores(tasks) or {}
    keys = [(task.name, document.doc_id) for task in tasks for document in task.documents]
    return {
        "task": [task for task, _ in keys],
        "doc_id": [doc_id for _, doc_id in keys],
        "score": [scores.get(key, float("nan")) for key in keys],
        "answer": [document.answer for document in documents],
        "media": [_media(document) for document in documents],
    }


def _media(document: Document) -> str | None:
    digests = [account.media if account.tiles else "" for account in document.account or ()]
    known = [digest for digest in digests if digest is not None]
    return " ".join(known) if digests and len(known) == len(digests) else None


def _check_harness(benchmark: Benchmark, runs: Sequence[CountedRun]) -> None:
    """Prompts and scorers differ between toolkits, so scores are not compared."""
    found = {run.record.harness: run.row for run in runs}
    if len(found) > 1:
        raise ReportError(
            f"{benchmark.title} was run by {' and by '.join(f'{harness} ({row})' for harness, row in found.items())}, "
            "which ask and score in different ways. The rows of a column need one toolkit; leave the other's runs out."
        )


def _check_repeats(benchmark: Benchmark, answered: Sequence[CountedRun]) -> None:
    """Runs of one row on one benchmark must be of one checkpoint and method; a seed may differ."""
    first: dict[str, CountedRun] = {}
    for run in answered:
        before = first.setdefault(run.row, run)
        if _model(before.record) != _model(run.record):
            raise ReportError(
                f"{benchmark.title}: {before.folder} and {run.folder} are both given as `{run.row}`, and ran another "
                "checkpoint or other arguments of the method. Give one of them another title, or leave it out."
            )


def _model(record: RunRecord) -> tuple[object, ...]:
    arguments = {name: value for name, value in record.method_args.items() if name != "seed"}
    return record.checkpoint.sha256 or record.checkpoint.name, record.donor, record.method, arguments


def _condition_notes(runs: Sequence[CountedRun]) -> list[str]:
    """What differs between a benchmark's runs besides the system: it may be part of a difference in scores."""
    notes = [
        f"{run.row}: only the first {limit} documents of each data set."
        for run in runs
        if (limit := run.record.settings.get("limit")) is not None
    ]
    for run in runs[1:]:
        first = runs[0]
        if different := _different(_conditions(first.record), _conditions(run.record)):
            notes.append(f"{run.row} ran with another {different} than {first.row}.")
    return notes


def _conditions(record: RunRecord) -> dict[str, Any]:
    settings = {f"settings.{key}": value for key, value in record.settings.items() if key != "batch_size"}
    versions = {f"version of {key}": value for key, value in record.versions.items()}
    return {"dtype": record.dtype, "attention": record.attention, "harness": record.harness} | settings | versions


def _comparison_notes(answered: Sequence[tuple[CountedRun, _Counts]]) -> list[str]:
    """Notes on what differs between runs of one benchmark; what makes them incomparable is an error."""
    notes: dict[str, None] = {}
    for run, counts in answered[1:]:
        first_run, first_counts = answered[0]
        pairs = zip(first_counts.tasks, counts.tasks, first_counts.doc_ids, counts.doc_ids, strict=True)
        for first, task, first_ids, ids in pairs:
            place = f"{task.name}: {first_run.folder} and {run.folder}"
            if first_ids != ids:
                raise ReportError(
                    f"{place} answered different documents ({_span(first_ids)} and {_span(ids)}). Rows of one table "
                    "need the same documents; repeat one of them with the other's --limit and --offset."
                )
            if first.version != task.version:
                raise ReportError(f"{place} ran different versions of the task ({first.version} and {task.version}).")
            if different := _different(first.settings, task.settings):
                notes[f"{place} differ in the task's {different}."] = None
    return list(notes)


def _different(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    return ", ".join(key for key in first if first[key] != second.get(key))


def _span(doc_ids: Sequence[int | str]) -> str:
    return f"{len(doc_ids)}: {doc_ids[0]} to {doc_ids[-1]}"
