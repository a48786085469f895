"""Suites: which lmms-eval tasks make which table. YAML files under `tasks/`, as closed schemas.

`benchmarks.yaml` is the catalogue: for each benchmark its tasks and how its number comes out of them. A file of
`suites/` names the benchmarks of one table in the paper's order. Reading them takes neither torch nor lmms-eval.

A task that lmms-eval has, but in another setting than a paper's, is changed by a file of `overrides/`: a group of
lmms-eval's with that task in it. lmms-eval 0.7.3 takes changes of a packaged task in no other form that its models can
run: a task file of the same name is passed over, the path of one in `--tasks` is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.paths import tasks_dir
from vico_eval.schemas import Closed
from vico_eval.score_rules import Category, Names, Score, VLMEvalKit
from vico_eval.yaml_files import read_yaml

Family = Literal["vico", "internvl-x"]
"""Whose systems the rows of a table are; model cards carry it too."""


class _OverriddenTask(BaseModel):
    """A packaged task and, in keys of lmms-eval's own, what is to be different in it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    task: str


class _Override(Closed):
    """A file of `overrides/`: a group of lmms-eval's, the only form in which it takes changes of a packaged task."""

    group: str
    task: Annotated[tuple[_OverriddenTask, ...], Field(min_length=1)]


class Benchmark(Closed):
    """An entry of the catalogue: a column of a table."""

    title: str = Field(min_length=1)
    """As the papers' tables print it."""

    tasks: Names
    """What lmms-eval's `--tasks` takes with `tasks/` as `--include_path`: tasks, packaged or ours, and overrides."""

    split: str
    """Of the data set; for people, the task decides."""

    score: Score
    model_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """What the model is started with for this benchmark, besides a system's own arguments."""

    judge: bool = False
    """Whether there is no score without another model's judgement."""

    category: Category | None = None
    """Where lmms-eval's samples have the documents' categories; None where they have none but the tasks."""

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

    checkpoints: str | None = None
    """Entry of models/checkpoints.yaml that is run unless another is asked for."""

    rows: tuple[str, ...] = ()
    """Cards that are run unless others are asked for; empty for all."""

    model_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """What every row's model is started with."""

    budgets: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Shares of the visual tokens that rows leave which would otherwise take the ratio of another one."""

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


def task_names(benchmark: Benchmark, tasks: Path | None = None) -> tuple[str, ...]:
    """The tasks whose results make a benchmark: an override's results are filed under the task that it changes.

    Raises:
        ConfigError: the file of an override doesn't fit.
    """
    names: list[str] = []
    for name in benchmark.tasks:
        override = _override(name, tasks)
        names.extend((name,) if override is None else (entry.task for entry in override.task))
    return tuple(names)


def overrides(benchmark: Benchmark, tasks: Path | None = None) -> dict[str, dict[str, Any]]:
    """What a benchmark's overrides change of a task, by task.

    Raises:
        ConfigError: the file of an override doesn't fit.
    """
    files = [_override(name, tasks) for name in benchmark.tasks]
    return {entry.task: entry.model_extra or {} for file in files if file is not None for entry in file.task}


def _override(name: str, tasks: Path | None) -> _Override | None:
    path = (tasks or tasks_dir()) / "overrides" / f"{name}.yaml"
    if not path.is_file():
        return None
    override = read_yaml(TypeAdapter(_Override), path)
    if override.group != path.stem:
        raise ConfigError(f"{path} holds group `{override.group}`; expected the name of the file, `{path.stem}`.")
    return override


def _files(tasks: Path | None) -> list[Path]:
    return sorted(((tasks or tasks_dir()) / "suites").glob("*.yaml"))


def _read(path: Path) -> Suite:
    suite = read_yaml(TypeAdapter(Suite), path)
    if suite.name != path.stem:
        raise ConfigError(f"{path} describes suite `{suite.name}`; expected the name of the file, `{path.stem}`.")
    return suite
