"""Check that counted runs are comparable, and combine them into measurements."""

from collections.abc import Mapping, Sequence

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.scores.benchmarks import Benchmark
from vico_eval.report.scores.counted import CountedBenchmark, CountedRun
from vico_eval.report.stats.comparability import check_harness, check_repeats, comparison_notes, condition_notes
from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import document_values


def measure(runs: Sequence[CountedRun], benchmarks: Sequence[Benchmark]) -> Measurements:
    """Combine the runs' measurements on `benchmarks`.

    Raises:
        ReportError: runs of a benchmark differ in toolkit, documents or task version, or no run has any of the
            benchmarks.
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
        cells.extend(
            {"row": run.row, "method": run.method, "run": number, **counted.cell} for number, run, counted in answered
        )
        if answered:
            documents[benchmark.title] = _documents({number: counted for number, _, counted in answered})
    if not cells:
        found = sorted({name for run in runs for name in run.tasks})
        wanted = [name for benchmark in benchmarks for name in benchmark.tasks]
        raise ReportError(
            f"No run has a benchmark of this table. It needs the tasks {', '.join(wanted)}; "
            f"the runs have {', '.join(found) or 'none'}. {' '.join(dict.fromkeys(notes))}".rstrip()
        )
    frame = pd.DataFrame(cells)
    return Measurements(
        cells=frame, documents=documents, values=document_values(frame, documents), notes=tuple(dict.fromkeys(notes))
    )


def _documents(answered: Mapping[int, CountedBenchmark]) -> Documents:
    """The documents of a benchmark, from its runs by number."""
    tasks = next(iter(answered.values())).tasks
    return Documents(
        tasks={task.name: len(task.doc_ids) for task in tasks},
        runs={number: run.documents for number, run in answered.items() if run.documents is not None},
    )
