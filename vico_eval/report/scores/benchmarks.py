"""A table's columns: benchmarks in the catalogue with the rules for their scores."""

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

# Points lost to rounding in lmms-eval, such as MMMU's accuracy to five digits.
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A column of a table."""

    title: str
    tasks: tuple[str, ...]
    rule: Score | VLMEvalKit
    """Rule that computes the score from the tasks' results."""

    digits: int = 1
    category: Category | None = None
    """Where the documents' categories are stored; None if the tasks are the only categories."""

    model_args: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """Model arguments that a run must have; with others, its score belongs to a different benchmark."""

    vlmevalkit: "Benchmark | None" = None
    """The same column in runs of VLMEvalKit; None if it lacks the benchmark."""

    def of(self, harness: str) -> "Benchmark | None":
        """The column for runs of a toolkit, given by its name in records; None if the toolkit lacks the benchmark."""
        return self.vlmevalkit if harness == VLMEVALKIT else self

    def document_scores(self, tasks: Sequence[TaskResult]) -> DocumentScores | None:
        """The documents' scores and values; None if the score can't be computed from documents.

        Raises:
            ReportError: the documents give a different score than the reported one.
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
    """A table's benchmarks and systems, in order."""

    name: str
    caption: str
    benchmarks: tuple[Benchmark, ...]
    file_stem: str
    """Name of the table's files, without the suffix."""

    systems: tuple[str, ...]
    """Systems in row order; the first counts as 100% unless a baseline is named."""


def table_spec(name: str) -> TableSpec:
    """Load the table of a suite, given by the suite's or the table's name.

    Raises:
        ConfigError: the name is unknown (the message lists the known ones), or a suite's or card's file doesn't fit the
            schema.
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
    """Convert an entry of the catalogue to a column.

    Raises:
        ConfigError: an override's file doesn't fit the schema.
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
    # In VLMEvalKit the data set's name sets the number of frames.
    model_args = {name: value for name, value in benchmark.model_args.items() if name != "num_frames"}
    in_vlmevalkit = replace(column, tasks=(other.dataset,), rule=other, category=other.category, model_args=model_args)
    return replace(column, vlmevalkit=in_vlmevalkit)


def chosen(benchmarks: Sequence[Benchmark], titles: Sequence[str] | None) -> list[Benchmark]:
    """Select benchmarks by title, in the table's order; all if `titles` is None.

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
