"""Finished runs as two frames: one line a run and benchmark, one line a run and document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.benchmarks import Benchmark
from vico_eval.report.records import RunRecord
from vico_eval.report.router_scores import ScoreCounts, count_scores
from vico_eval.report.runs import Document, Run, TaskResult

_COUNTS = ("tiles", "compressed_tiles", "visual_tokens", "visual_tokens_uncompressed", "layer_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What the runs of a table measured, unrounded.

    `cells` has the columns row, run (a number), benchmark, score (0-100; NaN where a document failed), documents (their
    number), num_available, without_account (their number), failed (their number), failure (the first one's reason),
    source, results, samples, threshold (the absolute one of a router that the run's record has; NaN without), scores
    (ScoreCounts of the router; None unless every document has them), and the summed token counts tiles,
    compressed_tiles, visual_tokens, visual_tokens_uncompressed, layer_tokens (visual tokens of a layer, mean over
    layers), which are NaN unless every document has an account.

    `documents` has row, run, benchmark, task, doc_id, score (0-100; NaN where the benchmark has none by document),
    answer (text; None where the document failed) and media (digest of its pictures, empty where it has none; None where
    the run doesn't say).
    """

    cells: pd.DataFrame
    documents: pd.DataFrame
    notes: tuple[str, ...]


def measure(runs: Sequence[tuple[str, Run]], benchmarks: Sequence[Benchmark]) -> Measurements:
    """What `runs`, each with its row's title, measured on `benchmarks`.

    Raises:
        ReportError: a benchmark was run by another toolkit, on other documents or at another task version by one run
            than by another, or no run has any of the benchmarks.
    """
    cells: list[dict[str, object]] = []
    documents: list[dict[str, object]] = []
    notes: list[str] = []
    for benchmark in benchmarks:
        answered = []
        for number, (row, run) in enumerate(runs):
            column = benchmark.of(run.record.harness)
            names = () if column is None else column.tasks
            tasks = [run.tasks[name] for name in names if name in run.tasks]
            if tasks and len(tasks) == len(names):
                answered.append((number, row, run, tasks))
            elif tasks:
                missing = ", ".join(name for name in names if name not in run.tasks)
                notes.append(f"{row}: {benchmark.title} counts as missing, since {run.folder.name} lacks {missing}.")
        column = benchmark.of(_harness(benchmark, [(row, run) for _, row, run, _ in answered]))
        if column is None:
            continue
        _check_repeats(benchmark, [(row, run) for _, row, run, _ in answered])
        notes.extend(_condition_notes([(row, run) for _, row, run, _ in answered]))
        notes.extend(_comparison_notes(benchmark, [(run, tasks) for _, _, run, tasks in answered]))
        for number, row, run, tasks in answered:
            cells.append({"row": row, "run": number, "threshold": _threshold(run.record)} | _cell(column, tasks))
            documents.extend({"row": row, "run": number} | line for line in _document_lines(column, tasks))
    if not cells:
        found = sorted({name for _, run in runs for name in run.tasks})
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
        "scores": _scores(documents),
    } | _counts(documents)


def _scores(documents: Sequence[Document]) -> ScoreCounts | None:
    accounts = [document.account for document in documents]
    if None in accounts:
        return None
    return count_scores(account for own in accounts for account in own or ())


def _threshold(record: RunRecord) -> float:
    # None: the checkpoint's own, which the record doesn't have.
    value = record.method_args.get("absolute_threshold")
    return float(value) if isinstance(value, int | float) else float("nan")


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


def _document_lines(benchmark: Benchmark, tasks: Sequence[TaskResult]) -> list[dict[str, object]]:
    failed = any(document.failure is not None for task in tasks for document in task.documents)
    scores = {} if failed else benchmark.conversion.document_scores(tasks) or {}
    return [
        {
            "benchmark": benchmark.title,
            "task": task.name,
            "doc_id": document.doc_id,
            "score": scores.get((task.name, document.doc_id), float("nan")),
            "answer": document.answer,
            "media": _media(document),
        }
        for task in tasks
        for document in task.documents
    ]


def _media(document: Document) -> str | None:
    digests = [account.media if account.tiles else "" for account in document.account or ()]
    known = [digest for digest in digests if digest is not None]
    return " ".join(known) if digests and len(known) == len(digests) else None


def _harness(benchmark: Benchmark, runs: Sequence[tuple[str, Run]]) -> str:
    """The toolkit of a benchmark's runs. Prompts and scorers differ between toolkits, so scores are not compared."""
    found = {run.record.harness: row for row, run in runs}
    if len(found) > 1:
        raise ReportError(
            f"{benchmark.title} was run by {' and by '.join(f'{harness} ({row})' for harness, row in found.items())}, "
            "which ask and score in different ways. The rows of a column need one toolkit; leave the other's runs out."
        )
    return next(iter(found), "")


def _check_repeats(benchmark: Benchmark, answered: Sequence[tuple[str, Run]]) -> None:
    """Runs of one row on one benchmark must be of one checkpoint and method; a seed may differ."""
    first: dict[str, Run] = {}
    for row, run in answered:
        before = first.setdefault(row, run)
        if _model(before.record) != _model(run.record):
            raise ReportError(
                f"{benchmark.title}: {before.folder} and {run.folder} are both given as `{row}`, and ran another "
                "checkpoint or other arguments of the method. Give one of them another title, or leave it out."
            )


def _model(record: RunRecord) -> tuple[object, ...]:
    arguments = {name: value for name, value in record.method_args.items() if name != "seed"}
    return record.checkpoint.sha256 or record.checkpoint.name, record.donor, record.method, arguments


def _condition_notes(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """What differs between a benchmark's runs besides the system: it may be part of a difference in scores."""
    notes = [
        f"{row}: only the first {limit} documents of each data set."
        for row, run in runs
        if (limit := run.record.settings.get("limit")) is not None
    ]
    for row, run in runs[1:]:
        first_row, first = runs[0]
        if different := _different(_conditions(first.record), _conditions(run.record)):
            notes.append(f"{row} ran with another {different} than {first_row}.")
    return notes


def _conditions(record: RunRecord) -> dict[str, Any]:
    settings = {f"settings.{key}": value for key, value in record.settings.items() if key != "batch_size"}
    versions = {f"version of {key}": value for key, value in record.versions.items()}
    return {"dtype": record.dtype, "attention": record.attention, "harness": record.harness} | settings | versions


def _comparison_notes(benchmark: Benchmark, answered: Sequence[tuple[Run, Sequence[TaskResult]]]) -> list[str]:
    """Notes on what differs between runs of one benchmark; what makes them incomparable is an error."""
    notes: dict[str, None] = {}
    for run, tasks in answered[1:]:
        first_run, first_tasks = answered[0]
        for first, task in zip(first_tasks, tasks, strict=True):
            place = f"{task.name}: {first_run.folder} and {run.folder}"
            first_ids, ids = ([document.doc_id for document in one.documents] for one in (first, task))
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
