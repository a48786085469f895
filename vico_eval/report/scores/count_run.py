"""Reduce a run to scores and counts, so that its documents can be freed before the next run is read."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from vico_eval.budgets import asked_share
from vico_eval.report.costs.counts import count_costs
from vico_eval.report.endings.counts import count_endings
from vico_eval.report.scores.benchmarks import Benchmark
from vico_eval.report.scores.clusters import SEPARATOR
from vico_eval.report.scores.counted import CountedBenchmark, CountedDocuments, CountedRun, CountedTask
from vico_eval.report.scores.router_scores import ScoreCounts, count_scores
from vico_eval.report.scores.score_range import checked_documents, checked_score
from vico_eval.report.strata.categories import categories_of
from vico_eval.runs.results import Document, Run, TaskResult, TimeSums
from vico_eval.runs.schema import RunRecord

_COUNTS = ("tiles", "compressed_tiles", "visual_tokens", "visual_tokens_uncompressed", "layer_tokens")


def count_run(row: str, run: Run, benchmarks: Sequence[Benchmark]) -> CountedRun:
    """Scores and counts of a run in row `row`, for each benchmark that it has a task of.

    Raises:
        ReportError: a metric or a document's score is missing or invalid.
    """
    counted = {}
    for benchmark in benchmarks:
        column = benchmark.of(run.record.harness)
        if column is not None and any(name in run.tasks for name in column.tasks):
            counted[benchmark.title] = _count(row, run, column)
    return CountedRun(
        row=row,
        method=row,
        folder=run.folder,
        record=run.record,
        notes=run.notes,
        tasks=tuple(run.tasks),
        benchmarks=counted,
    )


def _count(row: str, run: Run, benchmark: Benchmark) -> CountedBenchmark:
    if missing := [name for name in benchmark.tasks if name not in run.tasks]:
        return CountedBenchmark(
            note=f"{row}: {benchmark.title} counts as missing, because {run.folder.name} lacks {', '.join(missing)}."
        )
    is_other, asked = _compare_arguments(benchmark, run)
    note = f"{row}: {asked}" if asked else ""
    if is_other:
        return CountedBenchmark(note=note)
    tasks = [run.tasks[name] for name in benchmark.tasks]
    documents = [document for task in tasks for document in task.documents]
    share = asked_share(run.record.method, run.record.method_args)
    of_run = {
        "has_record": run.record.made_from is None,
        "threshold": _threshold(run.record),
        "asked_share": float("nan") if share is None else 100 * share,
    }
    return CountedBenchmark(
        note=note,
        tasks=tuple(map(_count_task, tasks)),
        cell=of_run | _cell(benchmark, tasks) | count_costs(run.record, documents),
        documents=count_documents(benchmark, tasks),
        times=sum((task.times for task in tasks), TimeSums()),
    )


class _Asked(NamedTuple):
    """Comparison of a run's arguments with the catalogue."""

    is_other: bool
    """The run had other arguments, so its score is not the benchmark's."""

    note: str


def _compare_arguments(benchmark: Benchmark, run: Run) -> _Asked:
    """Check that a run's model had the benchmark's arguments in the catalogue, such as frames or thinking."""
    said = {**run.record.method_args, **run.record.settings}
    place = f"{benchmark.title} of {run.folder.name}"
    unknown = []
    for name, wanted in benchmark.model_args.items():
        if name not in said:
            unknown.append(f"{name}={wanted}")
        # Other programs record their arguments as text.
        elif str(said[name]).lower() != str(wanted).lower():
            return _Asked(
                True,
                f"{place} counts as missing, because it was run with {name}={said[name]}; expected {name}={wanted}.",
            )
    if unknown:
        return _Asked(
            False, f"{place} may not have been run with {', '.join(unknown)}, since the run doesn't record it."
        )
    return _Asked(False, "")


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
        # The harness scores failed documents as blank answers, which are wrong, or right by chance.
        "score": float("nan") if failures else checked_score(benchmark.title, tasks, benchmark.rule.score(tasks)),
        "documents": len(documents),
        "num_available": sum(task.num_available for task in tasks),
        "without_account": sum(document.account is None for document in documents),
        "failed": len(failures),
        "failure": _writable(failures[0]) if failures else "",
        "source": benchmark.rule.source,
        "results": tuple(sorted({str(task.results_path) for task in tasks})),
        "samples": tuple(str(task.samples_path) for task in tasks),
        "scores": _scores(documents),
    } | {**_counts(documents), **count_endings(documents)}


def _scores(documents: Sequence[Document]) -> ScoreCounts | None:
    accounts = [document.account for document in documents]
    if None in accounts:
        return None
    return count_scores(account for own in accounts for account in own or ())


def _threshold(record: RunRecord) -> float:
    # None selects the checkpoint's own threshold, which is not in the record.
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


def count_documents(benchmark: Benchmark, tasks: Sequence[TaskResult]) -> CountedDocuments:
    """Scores, answers, media, categories and router scores of a benchmark's documents.

    Raises:
        ReportError: a document's score is missing or invalid.
    """
    documents = [document for task in tasks for document in task.documents]
    failed = any(document.failure is not None for document in documents)
    scored = None if failed else checked_documents(benchmark.title, tasks, benchmark.document_scores(tasks))
    answers = [None if document.answer is None else _writable(document.answer) for document in documents]
    return CountedDocuments(
        scored=scored,
        answers=np.array(answers, dtype=object),
        media=[_media(document) for document in documents],
        categories=categories_of(benchmark.category, tasks),
        p_compress=_document_scores(documents),
    )


def _document_scores(documents: Sequence[Document]) -> np.ndarray | None:
    """[documents]: mean p_compress over each document's tiles; None unless every tile has a score."""
    means = np.full(len(documents), np.nan)
    for place, document in enumerate(documents):
        scores: list[float] = []
        for account in document.account or ():
            if account.p_compress is None and account.tiles:
                return None
            scores.extend(account.p_compress or ())
        if scores:
            means[place] = sum(scores) / len(scores)
    return None if np.isnan(means).all() else means


def _writable(text: str) -> str:
    """The text with lone surrogates replaced by question marks, since pandas and files can't hold them."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _media(document: Document) -> str | None:
    digests = [account.media if account.tiles else "" for account in document.account or ()]
    known = [digest for digest in digests if digest is not None]
    return SEPARATOR.join(known) if digests and len(known) == len(digests) else None
