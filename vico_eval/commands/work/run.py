"""`vico-eval run`: evaluation of a suite's rows and benchmarks with lmms-eval, then its table and figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from vico_eval.commands.output import message_console
from vico_eval.commands.work.answering import answer, check_models_of, gpu_shares
from vico_eval.commands.work.dry_run import print_plan, show_plan
from vico_eval.commands.work.failures import Failure, describe
from vico_eval.commands.work.following import follow
from vico_eval.commands.work.goals import Goal
from vico_eval.commands.work.machines import place_of
from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.passes import plan_passes
from vico_eval.commands.work.plan import PlannedRun
from vico_eval.commands.work.report import print_report
from vico_eval.commands.work.run_folders import DocumentsFailed, check_cells, problems_of, unfinished
from vico_eval.commands.work.sharding import answer_shard, shard_goal, split_ready, tell_waiting
from vico_eval.commands.work.table import Table, claimed, plan_table
from vico_eval.errors import UserError
from vico_eval.report import Report, write_report

FIXTURES_NOTE = "Rehearsal on small local data sets in the benchmarks' schemas; the scores measure nothing."


class CellsFailed(UserError):
    """Cells of a table have no result or unanswered documents; the message has the commands that repeat them."""


def run_suite(
    name: str,
    options: RunOptions,
    *,
    dry_run: bool = False,
    as_json: bool = False,
    show: Callable[[Report], None] = print_report,
) -> None:
    """Fill a suite's table: run unfinished cells and write the table, or only show the plan.

    Args:
        name: the suite's name.
        options: the user's options.
        dry_run: only show the plan.
        as_json: print the plan as JSON.
        show: called with the written table, but not for a dry run, for a shard while others are unfinished, and for a
            process that follows another.

    Raises:
        UserError: the input is invalid; or, after everything else is finished, cells failed.
    """
    started = time.monotonic()
    console = message_console()
    table = plan_table(name, options, console)
    if dry_run:
        _show(table, console, as_json=as_json)
        return
    place = place_of(table)
    if place is not None and place.rank > 0:
        follow(table, place, console)
        return
    if options.shard is None:
        failures, is_complete = _answer_all(table, console), True
    else:
        failures, is_complete = answer_shard(table, options.shard, console)
    problem = _write_table(table, console, show) if is_complete else None
    console.print(f"Finished in {_minutes(time.monotonic() - started)}.", highlight=False)
    told = [problem] if problem else []
    if failures:
        told.append(
            f"{len(failures)} of {sum(len(run.cells) for run in table.runs)} cells are incomplete. Repeat the command "
            "to retry them; every answer so far is kept.\n\n"
            f"{describe(failures, can_repeat=options.shard is None)}"
        )
    if told:
        raise CellsFailed("\n\n".join(told))


def _show(table: Table, console: Console, *, as_json: bool) -> None:
    """Print the plan."""
    check_models_of(table.runs)
    shard = table.options.shard
    goal = Goal() if shard is None else shard_goal(shard)
    runs, waiting = (table.runs, []) if shard is None else split_ready(table)
    plans = {run.name: unfinished(run, table.inputs, goal.check, fresh=table.options.fresh) for run in runs}
    left = {name: cells for name, (_, cells) in plans.items()}
    passes = plan_passes(runs, left, jobs=table.jobs, shared=table.options.shared_pass, shard=shard)
    if shares := gpu_shares(table) if passes else []:
        told = ", ".join(f"{number}: {share}" for number, share in enumerate(map(",".join, shares), start=1))
        console.print(f"GPUs of the commands that run at once: {told}", highlight=False)
    (print_plan if as_json else show_plan)(runs, plans, passes)
    tell_waiting(waiting, console)


def _answer_all(table: Table, console: Console) -> list[Failure]:
    plans = {run.name: unfinished(run, table.inputs, check_cells, fresh=table.options.fresh)[1] for run in table.runs}
    claim = claimed(table, [run for run in table.runs if plans[run.name]])
    return answer(table, table.runs, plans, Goal(), console, claim)


def _write_table(table: Table, console: Console, show: Callable[[Report], None]) -> str | None:
    """Write the table of all runs with results; return why it can't be written, if so."""
    finished = _with_results(table.runs, table.baseline, console)
    if not finished:
        return None
    try:
        written = write_report(
            [(run.title, run.folder) for run in table.runs if run.folder in finished],
            table=table.suite.name,
            out=table.out,
            baseline=table.baseline,
            benchmarks=[benchmark.title for benchmark in table.benchmarks],
            only=finished,
            note=FIXTURES_NOTE if table.options.fixtures else None,
            html=table.html,
        )
        show(written)
    except UserError as error:
        return f"No table was written: {error}"
    return None


def _with_results(runs: Sequence[PlannedRun], baseline: str, console: Console) -> dict[Path, list[str]]:
    """Return the tasks that a table can be made of, by folder; none if the baseline has no results."""
    found: dict[Path, list[str]] = {}
    for run in runs:
        # A cell with failed documents is in the table, with a note.
        unreadable = [
            cell
            for cell, problem in problems_of(run, run.cells, check_cells)
            if not isinstance(problem, DocumentsFailed)
        ]
        readable = [cell for cell in run.cells if cell not in unreadable]
        if readable:
            found[run.folder] = [task for cell in readable for task in cell.results]
    if baseline not in {run.title for run in runs if run.folder in found}:
        console.print(f"No table was written: {baseline}, which counts as 100%, has no results.", highlight=False)
        return {}
    return found


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
