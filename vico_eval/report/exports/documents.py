"""Export every document's score in every run, for custom statistics."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vico_eval.report.scores.counted import CountedRun
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import runs_by_cell

COLUMNS = ("row", "system", "run", "benchmark", "task", "doc_id", "category", "score", "value", "cluster", "p_compress")


def document_frame(
    measured: Measurements, runs: Sequence[CountedRun], systems: Mapping[str, str], benchmarks: Sequence[str]
) -> pd.DataFrame:
    """One line per row, run, benchmark and document, in the order of the table, with the columns `COLUMNS`.

    doc_id is the toolkit's id as text; category is blank if the benchmark has none. score is the document's own score,
    and value its contribution to the benchmark's score, which is the mean of the values (both 0-100; NaN if the run
    lacks them or documents failed). Documents with the same cluster number, also across benchmarks, share an image or
    are scored together, so a bootstrap must resample them together. p_compress is the router's mean score over a
    document's tiles, NaN without a router.
    """
    numbers = runs_by_cell(measured.cells)
    frames = []
    for row, system in systems.items():
        for benchmark in benchmarks:
            for number in numbers.get((row, benchmark), ()):
                frames.append(_frame(measured, runs[number], number, benchmark).assign(row=row, system=system))
    every = pd.concat(frames, ignore_index=True).reindex(columns=list(COLUMNS))
    return every.astype(dict.fromkeys(("row", "system", "benchmark", "task", "category"), "category"))


def write_documents(frame: pd.DataFrame, path: Path) -> None:
    """Write the frame as Parquet."""
    frame.to_parquet(path, index=False, compression="zstd")


def _frame(measured: Measurements, run: CountedRun, number: int, benchmark: str) -> pd.DataFrame:
    documents = measured.documents[benchmark]
    tasks = run.benchmarks[benchmark].tasks
    ids = [str(doc_id) for task in tasks for doc_id in task.doc_ids]
    own = documents.runs[number]
    unknown = np.full(len(ids), np.nan)
    scored = own.scored
    return pd.DataFrame(
        {
            "run": number,
            "benchmark": benchmark,
            "task": [task.name for task in tasks for _ in task.doc_ids],
            "doc_id": ids,
            "category": documents.categories or [""] * len(ids),
            "score": unknown if scored is None else scored.scores,
            "value": unknown if scored is None else scored.values,
            "cluster": measured.values[benchmark].index.to_numpy(),
            "p_compress": unknown if own.p_compress is None else own.p_compress,
        }
    )
