"""Suites: which lmms-eval tasks make which table. Two kinds of YAML files under `tasks/`, as closed schemas.

`benchmarks.yaml` is the catalogue: for each benchmark its tasks and how its number comes out of them. A file of
`suites/` names the benchmarks of one table in the paper's order. Reading them takes neither torch nor lmms-eval.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.paths import tasks_dir
from vico_eval.yaml_files import Closed, read_yaml

Family = Literal["vico", "internvl-x"]
"""Whose systems the rows of a table are; model cards carry it too."""

Names = Annotated[tuple[str, ...], Field(min_length=1)]
FullMarks = Annotated[float, Field(gt=0)]
"""The value that counts as 100."""


class MetricScore(Closed):
    """A metric as lmms-eval reports it, which is the mean of `field` over the documents."""

    kind: Literal["metric"]
    key: str
    """Metric, comma, filter."""

    field: Names
    """Path to a document's number in its samples line."""

    full: FullMarks = 1


class DocumentMeanScore(Closed):
    """The mean of `field` over all documents of all the tasks (micro), whatever lmms-eval reports."""

    kind: Literal["document_mean"]
    field: Names
    full: FullMarks = 1


class TaskMeanScore(Closed):
    """The plain mean over the tasks of a reported metric that is no mean over documents; of one task, its metric."""

    kind: Literal["task_mean"]
    key: str
    full: FullMarks = 1


class MetricSumScore(Closed):
    """The sum of several metrics of one task."""

    kind: Literal["metric_sum"]
    keys: Names
    full: FullMarks


Score = Annotated[
    MetricScore | DocumentMeanScore | TaskMeanScore | MetricSumScore,
    Field(discriminator="kind"),
]


class VLMEvalKit(Closed):
    """The same benchmark in VLMEvalKit."""

    dataset: str
    metrics: Names
    """Columns of its score file, added up."""

    full: FullMarks
    split: str | None = None
    """Row of the score file, where it has several."""


class Benchmark(Closed):
    """An entry of the catalogue: a column of a table."""

    title: str = Field(min_length=1)
    """As the papers' tables print it."""

    tasks: Names
    """Names of lmms-eval tasks, packaged or under `tasks/`, or a file there: overrides of the task that it names."""

    split: str
    """Of the data set; for people, the task decides."""

    score: Score
    model_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """What the model is started with for this benchmark, besides a system's own arguments."""

    judge: bool = False
    """Whether there is no score without another model's judgement."""

    vlmevalkit: VLMEvalKit | None = None
    digits: int = Field(default=1, ge=0)
    note: str = ""
    """How the number is averaged, and what is known to differ from the paper's."""

    @model_validator(mode="after")
    def _kinds_of_one_task(self) -> Benchmark:
        if self.score.kind in ("metric", "metric_sum") and len(self.tasks) > 1:
            raise ValueError(f"score.kind `{self.score.kind}` is of one task; expected document_mean or task_mean")
        return self


class Suite(Closed):
    """A table: its columns and the systems that fill it."""

    name: str
    """Of the file; what `vico-eval run` takes."""

    title: str
    """The table's caption."""

    table: str
    """What `vico-eval report --table` takes, besides the name."""

    file_stem: str
    """Name of the table's files, less the ending."""

    cards: Family
    """Whose model cards its rows are."""

    rows: tuple[str, ...] = ()
    """Cards that are run unless others are asked for; empty for all."""

    benchmarks: Names
    """Names of the catalogue, in the paper's order."""


def load_benchmarks(tasks: Path | None = None) -> dict[str, Benchmark]:
    """The catalogue, by name.

    Args:
        tasks: the folder of `benchmarks.yaml`; None for the one that ships with the package.

    Raises:
        ConfigError: the file is missing or doesn't fit; names the key.
    """
    return read_yaml(TypeAdapter(dict[str, Benchmark]), (tasks or tasks_dir()) / "benchmarks.yaml")


def suite_names(tasks: Path | None = None) -> tuple[str, ...]:
    """Every suite, sorted."""
    return tuple(sorted(path.stem for path in _files(tasks)))


def load_suite(name: str, tasks: Path | None = None) -> Suite:
    """The suite of this name, or of the table of this name.

    Raises:
        ConfigError: there is none (lists those there are), its file doesn't fit, or it names a benchmark that the
            catalogue lacks.
    """
    suites = [_read(path) for path in _files(tasks)]
    found = {suite.table: suite for suite in suites} | {suite.name: suite for suite in suites}
    if name not in found:
        raise unknown_name("suite", name, found)
    suite = found[name]
    catalogue = load_benchmarks(tasks)
    place = f"suites/{suite.name}.yaml"
    for benchmark in suite.benchmarks:
        if benchmark not in catalogue:
            raise unknown_name("benchmark", benchmark, catalogue, where=place)
    titles = [catalogue[benchmark].title for benchmark in suite.benchmarks]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise ConfigError(f"{place} has two columns titled {', '.join(twice)}; a table's titles must differ.")
    return suite


def lmms_eval_tasks(benchmark: Benchmark, tasks: Path | None = None) -> tuple[str, ...]:
    """What lmms-eval's `--tasks` takes for a benchmark: names of tasks, and absolute paths of override files."""
    root = tasks or tasks_dir()
    return tuple(str((root / task).resolve()) if _is_file(task) else task for task in benchmark.tasks)


def task_names(benchmark: Benchmark, tasks: Path | None = None) -> tuple[str, ...]:
    """The names under which lmms-eval files a benchmark's results: an override keeps that of its task.

    Raises:
        ConfigError: an override file is missing or names no task.
    """
    root = tasks or tasks_dir()
    return tuple(_overridden(root / task) if _is_file(task) else task for task in benchmark.tasks)


def _is_file(task: str) -> bool:
    return task.endswith(".yaml")


def _overridden(path: Path) -> str:
    content: Mapping[str, Any] = read_yaml(TypeAdapter(dict[str, Any]), path)
    task = content.get("task")
    if not isinstance(task, str):
        raise ConfigError(f"{path} has task: {task!r}; expected the name of the lmms-eval task that it overrides.")
    return task


def _files(tasks: Path | None) -> list[Path]:
    return sorted(((tasks or tasks_dir()) / "suites").glob("*.yaml"))


def _read(path: Path) -> Suite:
    suite = read_yaml(TypeAdapter(Suite), path)
    if suite.name != path.stem:
        raise ConfigError(f"{path} describes suite `{suite.name}`; expected the name of the file, `{path.stem}`.")
    return suite
