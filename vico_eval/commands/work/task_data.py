"""The source of a suite's documents: the benchmarks' own data, or small local data sets with the same schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet
import yaml

from vico_eval import paths
from vico_eval.commands.output import check_writable
from vico_eval.commands.work.plan import Cell
from vico_eval.errors import ConfigError
from vico_eval.suites import Benchmark, overrides, task_names


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskData:
    """How lmms-eval finds a suite's documents."""

    include_path: Path
    """lmms-eval's `--include_path`."""

    tasks: Callable[[Benchmark], tuple[str, ...]]
    """A benchmark's name in lmms-eval's `--tasks`."""

    files: Mapping[str, Path]
    """Local file of a task's documents, if there is one."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of lmms-eval's process."""

    def cell(self, benchmark: Benchmark, limit: int | None) -> Cell:
        """Return a benchmark as a cell of a row; with a limit, for the first documents of each task."""
        results = task_names(benchmark)
        files = [self.files[task] for task in results if task in self.files]
        rows = [pyarrow.parquet.read_metadata(file).num_rows for file in files]
        documents = sum(rows if limit is None else (min(limit, count) for count in rows))
        return Cell(
            benchmark=benchmark.title,
            tasks=self.tasks(benchmark),
            results=results,
            model_args=benchmark.model_args,
            documents=documents if len(files) == len(results) else None,
        )


def own_data() -> TaskData:
    """Return the benchmarks' own data; those of the built-in benchmark are on this machine."""
    root = paths.tasks_dir()
    files = {}
    for task in (root / "tiny").glob("tiny_*.yaml"):
        data_files = yaml.safe_load(task.read_text(encoding="utf-8"))["dataset_kwargs"]["data_files"]
        files[task.stem] = task.parent / data_files["test"]
    return TaskData(include_path=root, tasks=lambda benchmark: benchmark.tasks, files=files)


def local_data(folder: Path, benchmarks: Iterable[Benchmark]) -> TaskData:
    """Write small data sets with the benchmarks' schemas to `folder`.

    Raises:
        ConfigError: a benchmark has none; nothing is written then.
    """
    from vico_eval.fixtures.build import TASKS, build_fixtures  # `datasets` takes seconds to import

    benchmarks = tuple(benchmarks)
    if missing := [one.title for one in benchmarks if not set(task_names(one)) <= set(TASKS)]:
        raise ConfigError(
            f"--fixtures has no local data for {', '.join(missing)}. The suites on the built-in benchmark need none: "
            "leave --fixtures out."
        )
    check_writable(folder)
    changed = {task: settings for benchmark in benchmarks for task, settings in overrides(benchmark).items()}
    built = build_fixtures(folder, overrides=changed)
    return TaskData(
        include_path=built.include_path,
        tasks=lambda benchmark: tuple(built.tasks[task] for task in task_names(benchmark)),
        files=built.files,
        environment=built.environment,
    )
