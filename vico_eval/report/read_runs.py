"""Read a report's runs, sequentially or in two worker processes. Each run is reduced to counts before the next is
read."""

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

from vico_eval.errors import ReportError
from vico_eval.plain_text import one_line
from vico_eval.report.page.kept import KeptSamples
from vico_eval.report.scores.benchmarks import Benchmark
from vico_eval.report.scores.count_run import count_run
from vico_eval.report.scores.counted import CountedRun
from vico_eval.runs.read import read_run
from vico_eval.runs.schema import RunRecord

NUM_WORKERS = 2

_WORTH_PROCESSES = 50_000_000
"""Size of samples in bytes from which reading takes longer than starting processes."""


@contextmanager
def workers_for(folders: Sequence[Path]) -> Iterator[Executor | None]:
    """Yield a pool of two processes, or None if the runs in `folders` are small."""
    # Stops as soon as the total is large enough, because listing all files of large runs is slow.
    sizes = accumulate(file.stat().st_size for folder in folders for file in folder.rglob("*.jsonl"))
    if all(size < _WORTH_PROCESSES for size in sizes):
        yield None
        return
    # Spawn, because forking a process with threads (pandas' libraries start some) may hang. Garbage collection is off:
    # the workers end before cyclic garbage could fill the memory.
    with ProcessPoolExecutor(NUM_WORKERS, mp_context=get_context("spawn"), initializer=gc.disable) as pool:
        yield pool


@contextmanager
def without_garbage_search() -> Iterator[None]:
    """Disable cyclic garbage collection for work that creates many objects without cycles, where it takes a third of
    the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def count_runs(
    runs: Sequence[tuple[str | None, Path]],
    columns: Sequence[Benchmark],
    only: Mapping[Path, Collection[str]],
    workers: Executor | None = None,
    *,
    blank_is_wrong: bool = False,
    samples: KeptSamples | None = None,
) -> list[CountedRun]:
    """Read runs and reduce them to their scores and counts for `columns`.

    Args:
        runs: row titles (None: from the record) and folders.
        columns: the table's columns.
        only: tasks to read, by run folder; all tasks for folders not listed.
        workers: processes that read the runs; None to read them here.
        blank_is_wrong: as in `read_run`.
        samples: stores the documents for a web page, if there is one.

    Raises:
        ReportError: there are no runs, a run is given twice, or runs are unusable; all of those are named.
    """
    if not runs:
        raise ReportError("A report needs at least one run folder.")
    resolved = [path.resolve() for _, path in runs]
    if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
        raise ReportError(f"The same run was given twice: {', '.join(twice)}.")
    titles, paths = zip(*runs, strict=True)
    kept = [only.get(path) for path in paths]
    reading = _Reading(columns=columns, blank_is_wrong=blank_is_wrong, samples=samples)
    arguments = (range(len(runs)), titles, paths, kept, [reading] * len(runs))
    with without_garbage_search():
        counted = list((map if workers is None else workers.map)(_read_and_count, *arguments))
    if problems := [problem for problem in counted if isinstance(problem, str)]:
        raise ReportError("\n".join(problems))
    return [run for run in counted if isinstance(run, CountedRun)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """Settings for reading a run, sent to worker processes."""

    columns: Sequence[Benchmark]
    blank_is_wrong: bool
    samples: KeptSamples | None


def _read_and_count(
    number: int, title: str | None, path: Path, only: Collection[str] | None, reading: _Reading
) -> CountedRun | str:
    """A run's scores and counts, or the reason it can't be used."""
    try:
        run = read_run(path, only, blank_is_wrong=reading.blank_is_wrong)
        counted = count_run(_row_title(title, run.record), run, reading.columns)
    except ReportError as error:
        return str(error)
    if reading.samples is not None:
        for benchmark, own in counted.benchmarks.items():
            documents = [document for task in own.tasks for document in run.tasks[task.name].documents]
            if documents:
                categories = None if own.documents is None else own.documents.categories
                reading.samples.write(number, benchmark, documents, categories)
    return counted


def _row_title(given: str | None, record: RunRecord) -> str:
    """The row's title on a single line."""
    return one_line(given or "") or one_line(record.title) or record.system
