"""Counted runs side by side: a frame with a line a run and benchmark, and the documents of each benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.benchmarks import Benchmark
from vico_eval.report.by_document import DocumentScores
from vico_eval.report.clusters import Clusters, clusters_of
from vico_eval.report.comparability import check_harness, check_repeats, comparison_notes, condition_notes
from vico_eval.report.counting import CountedBenchmark, CountedDocuments, CountedRun


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Documents:
    """A benchmark's documents, which all its runs answered in the same order, by the runs' numbers."""

    tasks: Mapping[str, int]
    """Its tasks, in order, with their number of documents."""

    runs: Mapping[int, CountedDocuments]
    """What each run says of them."""

    @property
    def number(self) -> int:
        """Of documents."""
        return sum(self.tasks.values())

    @property
    def scored(self) -> DocumentScores | None:
        """Of the first run that has them: how documents are scored together is the same in all."""
        return next((run.scored for run in self.runs.values() if run.scored is not None), None)

    @property
    def clusters(self) -> Clusters:
        """Which of them are drawn together."""
        units = range(self.number) if self.scored is None else self.scored.units.tolist()
        return clusters_of(units, (run.media for run in self.runs.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What the runs of a table measured, unrounded.

    `cells` has the columns row, run (a number), benchmark, score (0-100; NaN where a document failed), documents (their
    number), num_available, without_account (their number), failed (their number), failure (the first one's reason),
    source, results, samples, has_record (whether the run left one), threshold (the absolute one of a router that the
    run's record has; NaN without), scores (ScoreCounts of the router; None unless every document has them), and the
    summed token counts tiles, compressed_tiles, visual_tokens, visual_tokens_uncompressed, layer_tokens (visual tokens
    of a layer, mean over layers), which are NaN unless every document has an account.
    """

    cells: pd.DataFrame
    documents: Mapping[str, Documents]
    """By benchmark, those that were run."""

    notes: tuple[str, ...]


def measure(runs: Sequence[CountedRun], benchmarks: Sequence[Benchmark]) -> Measurements:
    """What `runs` measured on `benchmarks`.

    Raises:
        ReportError: a benchmark was run by another toolkit, on other documents or at another task version by one run
            than by another, or no run has any of the benchmarks.
    """
    cells: list[dict[str, object]] = []
    documents: dict[str, Documents] = {}
    notes = [f"{run.row}: {note}" for run in runs for note in run.notes]
    for benchmark in benchmarks:
        known = [
            (number, run, run.benchmarks[benchmark.title])
            for number, run in enumerate(runs)
            if benchmark.title in run.benchmarks
        ]
        notes.extend(counted.note for _, _, counted in known if counted.note)
        answered = [(number, run, counted) for number, run, counted in known if counted.tasks]
        own = [run for _, run, _ in answered]
        check_harness(benchmark, own)
        check_repeats(benchmark, own)
        notes.extend(condition_notes(own))
        notes.extend(comparison_notes([(run, counted.tasks) for _, run, counted in answered]))
        cells.extend({"row": run.row, "run": number, **counted.cell} for number, run, counted in answered)
        if answered:
            documents[benchmark.title] = _documents({number: counted for number, _, counted in answered})
    if not cells:
        found = sorted({name for run in runs for name in run.tasks})
        wanted = [name for benchmark in benchmarks for name in benchmark.tasks]
        raise ReportError(
            f"No run has a benchmark of this table. It needs the tasks {', '.join(wanted)}; "
            f"the runs have {', '.join(found) or 'none'}. {' '.join(dict.fromkeys(notes))}".rstrip()
        )
    return Measurements(cells=pd.DataFrame(cells), documents=documents, notes=tuple(dict.fromkeys(notes)))


def _documents(answered: Mapping[int, CountedBenchmark]) -> Documents:
    """Those of the runs by number."""
    tasks = next(iter(answered.values())).tasks
    return Documents(
        tasks={task.name: len(task.doc_ids) for task in tasks},
        runs={number: run.documents for number, run in answered.items() if run.documents is not None},
    )
