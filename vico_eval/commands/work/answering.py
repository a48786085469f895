"""Execution of a table's runs: processes with their environment and GPUs, and a progress display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

from vico_eval.commands.work.checks import check_device, check_folders, check_models
from vico_eval.commands.work.dry_run import in_passes
from vico_eval.commands.work.execute import Launch, execute
from vico_eval.commands.work.failures import Failure
from vico_eval.commands.work.goals import Goal
from vico_eval.commands.work.gpus import divide
from vico_eval.commands.work.machines import leading
from vico_eval.commands.work.passes import Pass, at_once, plan_passes
from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.commands.work.progress import LiveProgress, PlainProgress
from vico_eval.commands.work.starting import environment_of, num_cores, starting
from vico_eval.commands.work.table import Table

NOTHING = nullcontext()


def answer(
    table: Table,
    runs: Sequence[PlannedRun],
    left: Mapping[str, Sequence[Cell]],
    goal: Goal,
    console: Console,
    claim: AbstractContextManager[object] = NOTHING,
) -> list[Failure]:
    """Answer the unfinished cells of runs, and return failures.

    Args:
        table: the runs' table.
        runs: the runs, including all that others wait for.
        left: by run, the cells to answer.
        goal: the results that are expected.
        console: the console for messages.
        claim: a context manager that is entered after all checks and before anything is written.

    Raises:
        UserError: a checkpoint, an argument or the device can't be used.
    """
    options = table.options
    passes = plan_passes(runs, left, jobs=table.jobs, shared=options.shared_pass, shard=goal.shard)
    jobs = at_once(passes, table.jobs)
    shares = gpu_shares(table) if passes else []
    launching = options.launching
    threads = num_cores() // (jobs * launching.processes_here)
    environment = environment_of(threads, is_offline=table.is_offline)
    with starting(passes, environment, shares) as launch:
        if passes:
            if not launching.prefix:  # the prefix may start them on another machine
                check_device(table.device)
            check_models_of(table.runs)
        with claim, leading(table, launch) as launch_on_all:
            return _execute(table, runs, passes, goal=goal, jobs=jobs, launch=launch_on_all, console=console)


def check_models_of(runs: Sequence[PlannedRun]) -> None:
    """Check the models' arguments. It loads torch and transformers, which takes seconds and is skipped for a finished
    table."""
    check_models(runs, check_folders(dict.fromkeys(name for run in runs for name in run.checkpoints)))


def gpu_shares(table: Table) -> list[tuple[str, ...]]:
    """Return the GPUs of each command that runs at the same time; empty if they need no assignment.

    Raises:
        ConfigError: there are too few GPUs.
    """
    return divide(table.options.launching, table.device, table.jobs)


def _execute(
    table: Table,
    runs: Sequence[PlannedRun],
    passes: Sequence[Pass],
    *,
    goal: Goal,
    jobs: int,
    launch: Launch,
    console: Console,
) -> list[Failure]:
    counts = [run.documents for run in runs]
    known = "" if None in counts else f", {sum(count for count in counts if count is not None)} answers"
    part = "" if goal.shard is None else f"Shard {goal.shard} of "
    console.print(
        f"{part}{in_passes(runs, passes)}{known}, {jobs} at a time. Logs and answers: {table.runs_root}/",
        highlight=False,
    )
    progress: AbstractContextManager[LiveProgress | PlainProgress] = (
        LiveProgress(console, runs) if console.is_terminal else PlainProgress(console, runs)
    )
    try:
        with progress as shown:
            return execute(
                runs,
                passes,
                inputs=table.inputs,
                jobs=jobs,
                launch=launch,
                goal=goal,
                progress=shown,
                fresh=table.options.fresh,
            )
    except KeyboardInterrupt:
        console.print("Stopped. Repeat the command to resume; every answer so far is kept.")
        raise
