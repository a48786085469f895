"""Finished runs as two frames: one line a run and benchmark, one line a run and document."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.benchmarks import Benchmark
from vico_eval.report.comparability import asked_otherwise, check_repeats, comparison_notes, condition_notes
from vico_eval.report.records import RunRecord
from vico_eval.report.router_scores import ScoreCounts, count_scores
from vico_eval.report.runs import Document, Run, TaskResult

_COUNTS = ("tiles", "compressed_tiles", "visual_tokens", "visual_tokens_uncompressed", "layer_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What the runs of a table measured, unrounded.

    `cells` has the columns row, run (a number), benchmark, score (0-100; NaN where a document failed), documents (their
    number), num_available, without_account (their number), failed (their number), failure (the first one's reason),
    source, results, samples, has_record (whether the run left one), threshold (the absolute one of a router that the
    run's record has; NaN without), scores (ScoreCounts of the router; None unless every document has them), and the
    summed token counts tiles, compressed_tiles, visual_tokens, visual_tokens_uncompressed, layer_tokens (visual tokens
    of a layer, mean over layers), which are NaN unless every document has an account.

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
    notes = [f"{row}: {note}" for row, run in runs for note in run.notes]
    for benchmark in benchmarks:
        answered = []
        for number, (row, run) in enumerate(runs):
            column = benchmark.of(run.record.harness)
            names = () if column is None else column.tasks
            tasks = [run.tasks[name] for name in names if name in run.tasks]
            if column is not None and tasks and len(tasks) == len(names):
                is_other, note = asked_otherwise(column, run)
                if not is_other:
                    answered.append((number, row, run, tasks))
                if note:
                    notes.append(f"{row}: {note}")
            elif tasks:
                missing = ", ".join(name for name in names if name not in run.tasks)
                notes.append(f"{row}: {benchmark.title} counts as missing, since {run.folder.name} lacks {missing}.")
        column = benchmark.of(_harness(benchmark, [(row, run) for _, row, run, _ in answered]))
        if column is None:
            continue
        check_repeats(benchmark, [(row, run) for _, row, run, _ in answered])
        notes.extend(condition_notes([(row, run) for _, row, run, _ in answered]))
        notes.extend(comparison_notes([(run, tasks) for _, _, run, tasks in answered]))
        for number, row, run, tasks in answered:
            of_run = {"has_record": run.record.made_from is None, "threshold": _threshold(run.record)}
            cells.append({"row": row, "run": number} | of_run | _cell(column, tasks))
            documents.extend({"row": row, "run": number} | line for line in _document_lines(column, tasks))
    if not cells:
        found = sorted({name for _, run in runs for name in run.tasks})
        wanted = [name for benchmark in benchmarks for name in benchmark.tasks]
        raise ReportError(
            f"No run has a benchmark of this table. It needs the tasks {', '.join(wanted)}; "
            f"the runs have {', '.join(found) or 'none'}. {' '.join(dict.fromkeys(notes))}".rstrip()
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
        "failure": _writable(failures[0]) if failures else "",
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
            "answer": None if document.answer is None else _writable(document.answer),
            "media": _media(document),
        }
        for task in tasks
        for document in task.documents
    ]


def _writable(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair: pandas has no room for it, and no file."""
    return text if text.isascii() else text.encode(errors="replace").decode()


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
