"""What a run says of a table's benchmarks, counted, so that its documents can be let go before the next run is read."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from vico_eval.errors import ReportError
from vico_eval.plain_text import one_line
from vico_eval.report.asked import asked_otherwise
from vico_eval.report.benchmarks import Benchmark
from vico_eval.report.by_document import DocumentScores
from vico_eval.report.clusters import SEPARATOR
from vico_eval.report.router_scores import ScoreCounts, count_scores
from vico_eval.report.score_range import checked_documents, checked_score
from vico_eval.report.workers import without_garbage_search
from vico_eval.runs.read import read_run
from vico_eval.runs.records import RunRecord
from vico_eval.runs.results import Document, Run, TaskResult

_COUNTS = ("tiles", "compressed_tiles", "visual_tokens", "visual_tokens_uncompressed", "layer_tokens")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CountedTask:
    """What runs of a task must have in common to be compared."""

    name: str
    version: str
    settings: Mapping[str, Any]
    doc_ids: Sequence[int | str]
    questions: np.ndarray
    """[documents], uint32, checksums; all that is asked of them is whether two runs' differ."""

    targets: np.ndarray
    """[documents], uint32, checksums of the right answers."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CountedDocuments:
    """What is kept of each document of a benchmark, task by task, ascending."""

    scored: DocumentScores | None
    """None where a document failed, or the run doesn't say how documents make the score."""

    answers: np.ndarray
    """[documents], objects: texts; None where a document failed."""

    media: Sequence[str | None]
    """[documents], the digest of its pictures (of several requests those of all, on lines of their own), empty where it
    has none; None where the run doesn't say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedBenchmark:
    """What a run says of a benchmark."""

    note: str = ""
    """Why it counts as missing, or what can't be checked."""

    tasks: tuple[CountedTask, ...] = ()
    """None where it counts as missing; then the rest is empty too."""

    cell: Mapping[str, object] = field(default_factory=dict)
    """Columns of `Measurements.cells`."""

    documents: CountedDocuments | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedRun:
    """A run whose documents are counted, and gone: all documents of all runs at once would take gigabytes."""

    row: str
    """Its row's title."""

    folder: Path
    record: RunRecord
    notes: tuple[str, ...]
    """What a reader has to know of it besides its record."""

    tasks: tuple[str, ...]
    """All that it has, of the table or not."""

    benchmarks: Mapping[str, CountedBenchmark]
    """By title, those that it has a task of."""


def count_runs(
    runs: Sequence[tuple[str | None, Path]],
    columns: Sequence[Benchmark],
    only: Mapping[Path, Collection[str]],
    workers: Executor | None = None,
    *,
    blank_is_wrong: bool = False,
) -> list[CountedRun]:
    """What runs, by their row's title (None: the record's) and folder, say of `columns`.

    Args:
        runs: titles and folders.
        columns: of the table.
        only: tasks to read of a run, by its folder; all where it isn't named.
        workers: other processes, which read them.
        blank_is_wrong: as `read_run`.

    Raises:
        ReportError: no run, one given twice, or runs that don't count; all of them are named.
    """
    if not runs:
        raise ReportError("A report needs at least one run folder.")
    resolved = [path.resolve() for _, path in runs]
    if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
        raise ReportError(f"The same run was given twice: {', '.join(twice)}.")
    titles, paths = zip(*runs, strict=True)
    kept = [only.get(path) for path in paths]
    arguments = (titles, paths, kept, [columns] * len(runs), [blank_is_wrong] * len(runs))
    with without_garbage_search():
        counted = list((map if workers is None else workers.map)(_read_and_count, *arguments))
    if problems := [problem for problem in counted if isinstance(problem, str)]:
        raise ReportError("\n".join(problems))
    return [run for run in counted if isinstance(run, CountedRun)]


def _read_and_count(
    title: str | None, path: Path, only: Collection[str] | None, columns: Sequence[Benchmark], blank_is_wrong: bool
) -> CountedRun | str:
    """What a run says of the columns, or why it doesn't count."""
    try:
        run = read_run(path, only, blank_is_wrong=blank_is_wrong)
        return count_run(_row_title(title, run.record), run, columns)
    except ReportError as error:
        return str(error)


def _row_title(given: str | None, record: RunRecord) -> str:
    """In one line that any form of a table has room for."""
    return one_line(given or "") or one_line(record.title) or record.system


def count_run(row: str, run: Run, benchmarks: Sequence[Benchmark]) -> CountedRun:
    """What a run, of the row of this title, says of each benchmark that it has a task of.

    Raises:
        ReportError: a metric or a document's score is not what the benchmark needs.
    """
    counted = {}
    for benchmark in benchmarks:
        column = benchmark.of(run.record.harness)
        if column is not None and any(name in run.tasks for name in column.tasks):
            counted[benchmark.title] = _count(row, run, column)
    return CountedRun(
        row=row, folder=run.folder, record=run.record, notes=run.notes, tasks=tuple(run.tasks), benchmarks=counted
    )


def _count(row: str, run: Run, benchmark: Benchmark) -> CountedBenchmark:
    if missing := [name for name in benchmark.tasks if name not in run.tasks]:
        return CountedBenchmark(
            note=f"{row}: {benchmark.title} counts as missing, since {run.folder.name} lacks {', '.join(missing)}."
        )
    is_other, asked = asked_otherwise(benchmark, run)
    note = f"{row}: {asked}" if asked else ""
    if is_other:
        return CountedBenchmark(note=note)
    tasks = [run.tasks[name] for name in benchmark.tasks]
    of_run = {"has_record": run.record.made_from is None, "threshold": _threshold(run.record)}
    return CountedBenchmark(
        note=note,
        tasks=tuple(map(_count_task, tasks)),
        cell=of_run | _cell(benchmark, tasks),
        documents=_count_documents(benchmark, tasks),
    )


def _count_task(task: TaskResult) -> CountedTask:
    return CountedTask(
        name=task.name,
        version=task.version,
        settings=task.settings,
        doc_ids=[document.doc_id for document in task.documents],
        questions=_checksums(document.question for document in task.documents),
        targets=_checksums(document.target for document in task.documents),
    )


def _checksums(texts: Iterable[str]) -> np.ndarray:
    return np.array([crc32(text.encode(errors="surrogatepass")) for text in texts], dtype=np.uint32)


def _cell(benchmark: Benchmark, tasks: Sequence[TaskResult]) -> dict[str, object]:
    documents = [document for task in tasks for document in task.documents]
    failures = [document.failure for document in documents if document.failure is not None]
    return {
        "benchmark": benchmark.title,
        # The harness has scored failed documents as blank answers: wrong, or right by chance.
        "score": float("nan") if failures else checked_score(benchmark.title, tasks, benchmark.conversion.score(tasks)),
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


def _count_documents(benchmark: Benchmark, tasks: Sequence[TaskResult]) -> CountedDocuments:
    documents = [document for task in tasks for document in task.documents]
    failed = any(document.failure is not None for document in documents)
    scored = None if failed else checked_documents(benchmark.title, tasks, benchmark.conversion.document_scores(tasks))
    answers = [None if document.answer is None else _writable(document.answer) for document in documents]
    return CountedDocuments(
        scored=scored,
        answers=np.array(answers, dtype=object),
        media=[_media(document) for document in documents],
    )


def _writable(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair: pandas has no room for it, and no file."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _media(document: Document) -> str | None:
    digests = [account.media if account.tiles else "" for account in document.account or ()]
    known = [digest for digest in digests if digest is not None]
    return SEPARATOR.join(known) if digests and len(known) == len(digests) else None
