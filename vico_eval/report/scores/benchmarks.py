"""A table's columns: benchmarks of the catalogue with their scores, by document and in all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vico_eval import suites
from vico_eval.cards import load_cards
from vico_eval.errors import ReportError
from vico_eval.paths import models_dir
from vico_eval.report.scores import vlmevalkit
from vico_eval.report.scores.by_document import READINGS, DocumentScores, plain, read_scores
from vico_eval.runs.results import TaskResult
from vico_eval.runs.schema import VLMEVALKIT
from vico_eval.score_rules import (
    Category,
    DocumentMeanScore,
    MetricScore,
    MetricSumScore,
    Score,
    TaskMeanScore,
    VLMEvalKit,
    check_agreement,
    numbers,
)
from vico_eval.suites import load_benchmarks, load_suite, task_names

# As much of a point, where lmms-eval rounds, as MMMU's accuracy to five digits.
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A column of a table."""

    title: str
    tasks: tuple[str, ...]
    rule: Score | VLMEvalKit
    """How its score comes out of the tasks' results."""

    digits: int = 1
    category: Category | None = None
    """Where its documents' categories are; None where they have none but its tasks."""

    model_args: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What the model must have been started with; otherwise its score is one of another benchmark."""

    vlmevalkit: "Benchmark | None" = None
    """The same column in runs of VLMEvalKit; None where it lacks the benchmark."""

    def of(self, harness: str) -> "Benchmark | None":
        """The column in runs of a toolkit, by the name in their records."""
        return self.vlmevalkit if harness == VLMEVALKIT else self

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores | None:
        """The documents' scores and values; None where the run doesn't say how they make the score.

        Raises:
            ReportError: they make another score than the one reported.
        """
        match self.rule:
            case MetricScore() | DocumentMeanScore() as rule:
                return plain(numbers(tasks, rule.field, 100 / rule.full))
            case TaskMeanScore() | MetricSumScore() as rule:
                return _read(rule.documents, tasks, rule.score(tasks))
            case VLMEvalKit() as rule:
                (task,) = tasks
                return vlmevalkit.document_scores(rule, task)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSpec:
    """A table: which benchmarks, in which order."""

    name: str
    caption: str
    benchmarks: tuple[Benchmark, ...]
    file_stem: str
    """Name of its files, less the ending."""

    systems: tuple[str, ...]
    """Systems in the order of its rows; the first one counts as 100% unless a baseline is named."""


def table_spec(name: str) -> TableSpec:
    """The table of the suite called `name`, or whose table is.

    Raises:
        ConfigError: there is none (the message lists those there are), or a file of the suite or a card doesn't fit.
    """
    suite = load_suite(name)
    catalogue = load_benchmarks()
    return TableSpec(
        name=suite.table,
        caption=suite.title,
        benchmarks=tuple(as_column(catalogue[benchmark]) for benchmark in suite.benchmarks),
        file_stem=suite.file_stem,
        systems=tuple(load_cards(models_dir(), suite.cards)),
    )


def as_column(benchmark: suites.Benchmark) -> Benchmark:
    """An entry of the catalogue as a column that can be computed.

    Raises:
        ConfigError: the file of an override among its tasks doesn't fit.
    """
    column = Benchmark(
        title=benchmark.title,
        tasks=task_names(benchmark),
        rule=benchmark.score,
        digits=benchmark.digits,
        category=benchmark.category,
        model_args=benchmark.model_args,
    )
    if (other := benchmark.vlmevalkit) is None:
        return column
    # There the data set's name says how many frames.
    model_args = {name: value for name, value in benchmark.model_args.items() if name != "num_frames"}
    in_vlmevalkit = replace(column, tasks=(other.dataset,), rule=other, category=other.category, model_args=model_args)
    return replace(column, vlmevalkit=in_vlmevalkit)


def chosen(benchmarks: Sequence[Benchmark], titles: Sequence[str] | None) -> list[Benchmark]:
    """Those of these titles, in the table's order; all where none are given.

    Raises:
        ReportError: the table has no such benchmark.
    """
    if titles is None:
        return list(benchmarks)
    known = {benchmark.title: benchmark for benchmark in benchmarks}
    if unknown := [title for title in titles if title not in known]:
        raise ReportError(f"The table has no benchmark {', '.join(unknown)}; it has {', '.join(known)}.")
    return [benchmark for benchmark in benchmarks if benchmark.title in titles]


def _read(name: str | None, tasks: Sequence[TaskResult], reported: float) -> DocumentScores | None:
    if name is None or math.isnan(reported):
        return None
    scores = read_scores(name, tasks)
    if scores is None or np.isnan(scores.values).any():
        return scores
    made = float(scores.values.mean())
    if name in READINGS and abs(made - reported) > _ROUNDING:
        return None
    check_agreement(tasks, reported, made, _ROUNDING)
    return scores
