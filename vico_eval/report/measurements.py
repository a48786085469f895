"""Counted runs as two frames: one line a run and benchmark, one line a run and document."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.benchmarks import Benchmark
from vico_eval.report.comparability import check_harness, check_repeats, comparison_notes, condition_notes
from vico_eval.report.counting import CountedRun

_DOCUMENT_COLUMNS = ("row", "run", "benchmark", "task", "doc_id", "score", "answer", "media")


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


def measure(runs: Sequence[CountedRun], benchmarks: Sequence[Benchmark]) -> Measurements:
    """What `runs` measured on `benchmarks`.

    Raises:
        ReportError: a benchmark was run by another toolkit, on other documents or at another task version by one run
            than by another, or no run has any of the benchmarks.
    """
    cells: list[dict[str, object]] = []
    documents: dict[str, list[Any]] = {name: [] for name in _DOCUMENT_COLUMNS}
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
        for number, run, counted in answered:
            cells.append({"row": run.row, "run": number, **counted.cell})
            num_documents = len(counted.documents["doc_id"])
            for name, value in (("row", run.row), ("run", number), ("benchmark", benchmark.title)):
                documents[name].extend([value] * num_documents)
            for name, values in counted.documents.items():
                documents[name].extend(values)
    if not cells:
        found = sorted({name for run in runs for name in run.tasks})
        wanted = [name for benchmark in benchmarks for name in benchmark.tasks]
        raise ReportError(
            f"No run has a benchmark of this table. It needs the tasks {', '.join(wanted)}; "
            f"the runs have {', '.join(found) or 'none'}. {' '.join(dict.fromkeys(notes))}".rstrip()
        )
    # Answers are read once, as Python's texts; as pandas' own they would be copied twice.
    answers = pd.Series(documents["answer"], dtype=object)
    frame = pd.DataFrame({**documents, "answer": answers})
    return Measurements(cells=pd.DataFrame(cells), documents=frame, notes=tuple(dict.fromkeys(notes)))
