"""Suites: the lmms-eval tasks behind each table, read from YAML files under `tasks/`.

`benchmarks.yaml` is the catalogue: each benchmark's tasks and the rule for its score. A file in `suites/` lists the
benchmarks of one table in the paper's order. Reading them needs neither torch nor lmms-eval.

A file in `overrides/` changes settings of a packaged lmms-eval task to match a paper. It is an lmms-eval group that
contains the task. In lmms-eval 0.7.3 this is the only way to change a packaged task that its models can run: it ignores
a task file of the same name, and rejects the path of one in `--tasks`.
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
"""Family of systems in a table's rows; also a field of model cards."""


class _OverriddenTask(BaseModel):
    """A packaged task; extra fields are lmms-eval keys with their changed values."""

    model_config = ConfigDict(extra="allow", frozen=True)

    task: str


class _Override(Closed):
    """A file in `overrides/`: an lmms-eval group with the changed tasks."""

    group: str
    task: Annotated[tuple[_OverriddenTask, ...], Field(min_length=1)]


class Benchmark(Closed):
    """An entry of the catalogue, which is a column of a table."""

    title: str = Field(min_length=1)
    """Title as printed in the papers' tables."""

    tasks: Names
    """Names for lmms-eval's `--tasks`, with `tasks/` as `--include_path`: packaged tasks, our tasks and overrides."""

    split: str
    """Split of the data set, for information only; the task decides."""

    score: Score
    model_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Model arguments for this benchmark, in addition to the system's own."""

    judge: bool = False
    """Scoring needs another model as judge."""

    category: Category | None = None
    """Where lmms-eval's samples store the documents' categories; None if the tasks are the only categories."""

    vlmevalkit: VLMEvalKit | None = None
    digits: int = Field(default=1, ge=0)
    note: str = ""
    """How the score is averaged, and known differences from the paper."""

    @model_validator(mode="after")
    def _kinds_of_one_task(self) -> Benchmark:
        if self.score.kind in ("metric", "metric_sum") and len(self.tasks) > 1:
            raise ValueError(f"score.kind `{self.score.kind}` takes one task; expected document_mean or task_mean")
        return self


class Suite(Closed):
    """A table: its columns and the family of systems in its rows."""

    name: str
    """Name of the file and of the suite in `vico-eval run`."""

    title: str
    """The table's caption."""

    table: str
    """Alternative name in `vico-eval report --table`."""

    file_stem: str
    """Name of the table's files, without the suffix."""

    cards: Family
    """Family of the model cards in the rows."""

    checkpoints: str | None = None
    """Default entry in models/checkpoints.yaml."""

    rows: tuple[str, ...] = ()
    """Default cards to run; empty for all."""

    model_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Model arguments for every row."""

    budgets: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Shares of visual tokens to keep, for rows that would otherwise take their ratio from another row."""

    benchmarks: Names
    """Names in the catalogue, in the paper's order."""


def load_benchmarks(tasks: Path | None = None) -> dict[str, Benchmark]:
    """Load the catalogue of benchmarks, by name.

    Args:
        tasks: the folder of `benchmarks.yaml`; None for the one shipped with the package.

    Raises:
        ConfigError: the file is missing or doesn't fit the schema; the message names the key.
    """
    return read_yaml(TypeAdapter(dict[str, Benchmark]), (tasks or tasks_dir()) / "benchmarks.yaml")


def suite_names(tasks: Path | None = None) -> tuple[str, ...]:
    """The names of all suites, sorted."""
    return tuple(sorted(path.stem for path in _files(tasks)))


def load_suite(name: str, tasks: Path | None = None) -> Suite:
    """Load a suite by its own name or its table's name.

    Raises:
        ConfigError: the suite is unknown (the message lists the known ones), its file doesn't fit the schema, or it
            names a benchmark that is not in the catalogue.
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
    """The tasks whose results make up a benchmark. An override's results are filed under the task that it changes.

    Raises:
        ConfigError: an override's file doesn't fit the schema.
    """
    names: list[str] = []
    for name in benchmark.tasks:
        override = _override(name, tasks)
        names.extend((name,) if override is None else (entry.task for entry in override.task))
    return tuple(names)


def overrides(benchmark: Benchmark, tasks: Path | None = None) -> dict[str, dict[str, Any]]:
    """The lmms-eval keys that a benchmark's overrides change, by task.

    Raises:
        ConfigError: an override's file doesn't fit the schema.
    """
    files = [_override(name, tasks) for name in benchmark.tasks]
    return {entry.task: entry.model_extra or {} for file in files if file is not None for entry in file.task}


def _override(name: str, tasks: Path | None) -> _Override | None:
    path = (tasks or tasks_dir()) / "overrides" / f"{name}.yaml"
    if not path.is_file():
        return None
    override = read_yaml(TypeAdapter(_Override), path)
    if override.group != path.stem:
        raise ConfigError(f"{path} defines group `{override.group}`; expected the file's name, `{path.stem}`.")
    return override


def _files(tasks: Path | None) -> list[Path]:
    return sorted(((tasks or tasks_dir()) / "suites").glob("*.yaml"))


def _read(path: Path) -> Suite:
    suite = read_yaml(TypeAdapter(Suite), path)
    if suite.name != path.stem:
        raise ConfigError(f"{path} describes suite `{suite.name}`; expected the file's name, `{path.stem}`.")
    return suite
