"""Export a report's rows as model card results: the `model-index` that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from vico_eval.report.scores.counted import CountedRun
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import by_row, runs_by_cell
from vico_eval.report.tables.table import Table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "image-text-to-text"
_DIGITS = 2


def model_index(table: Table, measured: Measurements, runs: Sequence[CountedRun]) -> str:
    """YAML for the head of a model card, with scores, retention and visual tokens for each row.

    A data set is identified by the toolkit's task and the data fingerprint in the run's record. Rows without scores are
    left out.
    """
    # Imported here because loading it takes as long as writing a small report.
    from huggingface_hub.repocard_data import eval_results_to_model_index

    numbers = runs_by_cell(measured.cells)
    entries = []
    for row in table.summary.index:
        results = list(_results(row, table, measured, runs, numbers))
        if results:
            entries += eval_results_to_model_index(str(row), results)
    return str(yaml.safe_dump({"model-index": entries}, sort_keys=False, allow_unicode=True))


def _results(
    row: str,
    table: Table,
    measured: Measurements,
    runs: Sequence[CountedRun],
    numbers: Mapping[tuple[str, str], Sequence[int]],
) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    scores = by_row(measured.cells, "score").loc[row]
    for benchmark in table.columns:
        if pd.isna(scores.get(benchmark, None)):
            continue
        run = runs[min(numbers[row, benchmark])]
        tasks = [task.name for task in run.benchmarks[benchmark].tasks]
        known = [run.record.data_sets[task] for task in tasks if task in run.record.data_sets]
        yield EvalResult(
            task_type=TASK,
            dataset_type="+".join(tasks),
            dataset_name=benchmark,
            dataset_revision=known[0] if len(tasks) == len(known) == 1 else None,
            metric_type="score",
            metric_name=str(run.benchmarks[benchmark].cell["source"]),
            metric_value=round(float(scores[benchmark]), _DIGITS),
        )
    for name, column in (("Relative retention, %", "retention"), ("Visual tokens, %", "token_share")):
        value = table.summary.at[row, column]
        if not pd.isna(value):
            yield EvalResult(
                task_type=TASK,
                dataset_type="mean",
                dataset_name=f"{', '.join(table.columns)}, against {table.baseline}",
                metric_type=column,
                metric_name=name,
                metric_value=round(float(value), _DIGITS),
            )
