"""`vico-eval demo`: every row of a table on the built-in benchmark through lmms-eval, then table and picture."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow.parquet
import yaml

from vico_eval import paths
from vico_eval.commands.cards import load_cards, load_checkpoints
from vico_eval.commands.execute import Subprocess, execute, fingerprint
from vico_eval.commands.output import check_writable, message_console
from vico_eval.commands.plan import Benchmark, PlannedRun, plan_runs
from vico_eval.commands.progress import LiveProgress, PlainProgress
from vico_eval.commands.report import make_report
from vico_eval.errors import CheckpointError
from vico_eval.report.runs import read_run
from vico_eval.suites import load_suite

TASKS = "tiny"
"""lmms-eval's group of the built-in benchmark, and the folder of its files."""

BATCH_SIZE = 32

# Rooms whose code decides what a model answers; a change in one of them makes finished runs stale.
_ANSWERING = ("internvl", "methods", "engine", "adapters")


def run_demo(
    *,
    table: str,
    limit: int | None,
    out: Path | None,
    rows: Sequence[str],
    num_seeds: int,
    jobs: int | None,
    fresh: bool,
) -> None:
    """Fill a table on the built-in benchmark and print it.

    Args:
        table: `tiny` (ViCO's Table 3) or `internvl-x`.
        limit: first documents of each task; None for all.
        out: folder of table and picture. Default: `results/measured/<table>`; with a limit or only some rows, a folder
            under `runs/`, so that a partial table never takes the place of the full one.
        rows: names of systems; all where empty.
        num_seeds: runs of each random row, at most as many as its card has seeds.
        jobs: processes at once; None for one a core, at most four.

    Raises:
        UserError: bad input, or a row whose documents were not all answered.
    """
    cards = load_cards(paths.models_dir(), load_suite(table).cards)
    name = table if limit is None else f"{table}-limit{limit}"
    is_full = limit is None and not rows
    runs_root = Path("runs") / name
    out = out or (Path("results/measured") / table if is_full else runs_root / "report")
    tasks = paths.tasks_dir() / TASKS
    checkpoints = load_checkpoints(paths.models_dir())[table]
    benchmark = Benchmark(
        tasks=(TASKS,),
        include_path=paths.tasks_dir(),
        checkpoints=checkpoints,
        batch_size=BATCH_SIZE,
        device="cpu",
        limit=limit,
    )
    runs = plan_runs(cards, rows, benchmark, runs_root, num_seeds)
    folders = checkpoint_folders(runs, checkpoints.trained_by)
    for folder in (out, runs_root):
        check_writable(folder)
    inputs = fingerprint([*folders, tasks, *_answering_code()])
    cores = num_cores()
    jobs = jobs or min(4, cores)

    console = message_console()
    started = time.monotonic()
    documents = count_documents(tasks, limit)
    console.print(
        f"{len(runs)} runs of {documents} documents, {jobs} at a time on {cores} cores. Logs and answers: {runs_root}/",
        highlight=False,
    )
    environment = {
        # Everything is on this machine; a look at the hub could only fail or wait.
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, cores // jobs)),
        # glibc otherwise hands the memory of each large tensor back to the kernel and has it zeroed again.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
    }
    progress: AbstractContextManager[LiveProgress | PlainProgress] = (
        LiveProgress(console, runs, documents) if console.is_terminal else PlainProgress(console, runs, documents)
    )
    try:
        with progress as shown:
            execute(
                runs,
                inputs=inputs,
                jobs=jobs,
                launch=lambda run, log: Subprocess(run.command, log, environment),
                check=read_run,
                progress=shown,
                fresh=fresh,
            )
    except KeyboardInterrupt:
        console.print("Stopped. The same command keeps the rows that are complete and goes on with the others.")
        raise
    make_report([(run.title, run.folder) for run in runs], table=table, out=out)
    console.print(f"Finished in {_minutes(time.monotonic() - started)}.", highlight=False)


def count_documents(tasks: Path, limit: int | None) -> int:
    """Documents that a run answers: the rows of each task's data, at most `limit` of them."""
    files = [
        task.parent / yaml.safe_load(task.read_text(encoding="utf-8"))["dataset_kwargs"]["data_files"]["test"]
        for task in sorted(tasks.glob("tiny_*.yaml"))
    ]
    rows = [pyarrow.parquet.read_metadata(file).num_rows for file in files]
    return sum(rows if limit is None else (min(limit, count) for count in rows))


def num_cores() -> int:
    """Cores that this process may use: its affinity, and a container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def checkpoint_folders(runs: Sequence[PlannedRun], trained_by: str | None) -> list[Path]:
    """The folders of the built-in checkpoints that runs load.

    Args:
        runs: of one table.
        trained_by: the command that trains the table's checkpoints.

    Raises:
        CheckpointError: one is not there; says how to train it.
    """
    folders = [paths.models_dir() / name for name in dict.fromkeys(name for run in runs for name in run.checkpoints)]
    if missing := [folder for folder in folders if not (folder / "config.json").is_file()]:
        names = ", ".join(folder.name for folder in missing)
        raise CheckpointError(
            f"{paths.models_dir()} has no finished checkpoint {names}. Train it (`{trained_by}`) and move its folder "
            "there, or leave out its rows."
        )
    return folders


def _answering_code() -> list[Path]:
    package = Path(__file__).resolve().parent.parent
    return [package / room for room in _ANSWERING]


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
