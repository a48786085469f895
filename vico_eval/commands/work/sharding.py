"""`vico-eval run --shard`: answering a part of a table's documents, and scoring rows when all parts are finished.

Commands only communicate through the runs' folders. Each answers its part of every row. The command that finishes a
row's last part starts its scoring, in a process that finds all answers there and loads no weights. Only failed
documents are asked once more, and if they fail again, the row's cells report it. A row that depends on another one
(`ratio_from`) starts when that one is scored, on the benchmarks that are complete there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from vico_eval.commands.work.answering import answer
from vico_eval.commands.work.at_work import held_if_free, lock_file
from vico_eval.commands.work.failures import Failure, without_source
from vico_eval.commands.work.goals import Goal
from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.commands.work.progress import PlainProgress
from vico_eval.commands.work.run_folders import DocumentsFailed, check_cells, prepare, problems_of, unfinished
from vico_eval.commands.work.table import Table, claimed
from vico_eval.errors import ConfigError, ReportError, listed
from vico_eval.runs.holding import others_at_work
from vico_eval.runs.merging import check_merged, complete_number, missing_shards
from vico_eval.runs.shards import Shard, read_shards, shard_file

_NAMED = 20


def answer_shard(table: Table, shard: Shard, console: Console) -> tuple[list[Failure], bool]:
    """Answer a shard of every row that needn't wait, and score the rows that this completes.

    Returns:
        The failures, and whether all rows have been scored, possibly with failed documents.

    Raises:
        ConfigError: another command has the same shard, or commands with another number of shards are running.
    """
    goal = shard_goal(shard)
    prepare_for_shard = partial(_prepare, table=table, shard=shard, console=console)
    while True:
        ready, _ = split_ready(table)
        left = {run.name: _left(run, table, goal) for run in ready}
        to_do = [run for run in ready if left[run.name]]
        failures = []
        if to_do:
            failures = answer(table, to_do, left, goal, console, claimed(table, to_do, shard, prepare_for_shard))
        scored, not_scored = _score(table, ready, console)
        # The row's score covers all documents of its shards.
        failures = [failure for failure in failures if failure.run.name not in scored] + not_scored
        if failures or not scored:  # otherwise runs that waited for a row may begin
            break
    unscored = [run for run in table.runs if not _is_settled(run, table)]
    _tell(unscored, shard, console)
    return failures + _without_ratio(table, unscored), not unscored


def shard_goal(shard: Shard) -> Goal:
    """Return the goal of a shard: all its documents have been asked."""
    return Goal(partial(_check_shard, shard), partial(_outcome, shard), shard)


def split_ready(table: Table) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """Split a table's runs into those that can start and those that depend on a run which isn't scored yet."""
    settled = {run.name for run in table.runs if _is_settled(run, table)}
    waiting = [run for run in table.runs if run.after is not None and not {run.name, run.after} & settled]
    ready = [replace(run, after=None, cells=_possible(run, table)) for run in table.runs if run not in waiting]
    return [run for run in ready if run.cells], waiting


def _check_shard(shard: Shard, folder: Path, cells: Sequence[Cell]) -> None:
    """Check that a run has an answer to every document of a shard; see `check_cells`.

    Raises:
        DocumentsFailed: some documents failed.
        ReportError: not all documents have been asked.
    """
    done = read_shards(folder).get(shard, {})
    wanted = [task for cell in cells for task in cell.results]
    missing = [task for task in wanted if task not in done]
    if missing:
        try:
            check_cells(folder, cells)
        except ReportError as error:
            raise ReportError(f"shard {shard} has not asked all its documents of {', '.join(missing)}.") from error
        return  # scored, with or without failures
    if failed := sum(done[task].failed for task in wanted):
        number = sum(done[task].documents for task in wanted)
        raise DocumentsFailed(f"{failed} of {number} documents of shard {shard} have no answer.")


def _outcome(shard: Shard, folder: Path) -> list[int]:
    """Return when the shard was last completed."""
    path = shard_file(folder, shard)
    return [path.stat().st_mtime_ns] if path.exists() else []


def _left(run: PlannedRun, table: Table, goal: Goal) -> Sequence[Cell]:
    return unfinished(run, table.inputs, goal.check)[1]


def _is_settled(run: PlannedRun, table: Table) -> bool:
    """Return whether a run has been scored as far as possible; documents may have failed."""
    source = _source(run, table)
    if source is not None and not _is_settled(source, table):
        return unfinished(run, table.inputs, check_cells) == (None, ())
    possible = _possible(run, table)
    reason, _ = unfinished(run, table.inputs, check_cells)
    problems = problems_of(run, possible, check_cells) if possible else []
    return reason is None and all(isinstance(problem, DocumentsFailed) for _, problem in problems)


def _possible(run: PlannedRun, table: Table) -> tuple[Cell, ...]:
    """Return the cells of a run whose source run has no failures in them."""
    source = _source(run, table)
    missing = () if source is None else unfinished(source, table.inputs, check_cells)[1]
    lost = {cell.benchmark for cell in missing}
    return tuple(cell for cell in run.cells if cell.benchmark not in lost)


def _source(run: PlannedRun, table: Table) -> PlannedRun | None:
    """Return the run that a run depends on."""
    return next((other for other in table.runs if other.name == run.after), None)


def _without_ratio(table: Table, unscored: Sequence[PlannedRun]) -> list[Failure]:
    """Return the cells that could not be answered because their source run failed there."""
    failures = []
    for run in table.runs:
        source = _source(run, table)
        if source is None or source in unscored:
            continue
        possible = _possible(run, table)
        lost = [cell for cell in _left(run, table, Goal()) if cell not in possible]
        failures += [Failure(run, cell, without_source(source.name, cell)) for cell in lost]
    return failures


def _prepare(run: PlannedRun, *, table: Table, shard: Shard, console: Console) -> None:
    """Move aside stale answers of a run, before other shards begin.

    Raises:
        ConfigError: others have begun with different inputs.
    """
    reason, _ = unfinished(run, table.inputs, check_cells)
    if reason is not None and others_at_work(lock_file(run), shard):
        raise ConfigError(f"other shards work on {run.folder}, and this one can't join them, since {reason}.")
    prepare(run, table.inputs, PlainProgress(console, [run]), fresh=False)


def _score(table: Table, runs: Sequence[PlannedRun], console: Console) -> tuple[set[str], list[Failure]]:
    """Score the runs whose shards are complete, unless another command does; return these runs and the failures."""
    left = {run.name: _left(run, table, Goal()) for run in runs}
    complete = [run for run in runs if left[run.name] and _is_complete(run, left[run.name])]
    with held_if_free(complete) as taken:
        to_do = [run for run in taken if _left(run, table, Goal())]
        if not to_do:
            return set(), []
        names = [run.name for run in to_do]
        console.print(f"All shards of {', '.join(names)} are complete.", highlight=False)
        return set(names), answer(table, to_do, left, Goal(), console)


def _is_complete(run: PlannedRun, cells: Sequence[Cell]) -> bool:
    """Return whether shards have asked all documents.

    Raises:
        ReportError: the shards are marked as finished, but answers are missing.
    """
    tasks = [task for cell in cells for task in cell.results]
    done = read_shards(run.folder)
    of = complete_number(done, tasks)
    if of is not None:
        check_merged(run.folder, done, tasks, of)
    return of is not None


def _tell(unscored: Sequence[PlannedRun], shard: Shard, console: Console) -> None:
    """Print what is still missing, and which shards have to deliver it."""
    awaited: dict[tuple[str, ...], list[str]] = {}
    for run in unscored:
        tasks = [task for cell in run.cells for task in cell.results]
        missing = missing_shards(read_shards(run.folder), tasks, shard.of) if run.folder.is_dir() else []
        awaited.setdefault(tuple(map(str, missing)), []).append(run.name)
    waiting = [run for run in unscored if run.after in {other.name for other in unscored}]
    for shards, names in awaited.items():
        names = [name for name in names if name not in {run.name for run in waiting}]
        if names and shards:
            console.print(f"Incomplete: {', '.join(names)}; missing shards {listed(shards, _NAMED)}.", highlight=False)
        elif names:
            console.print(f"Another command scores {', '.join(names)}.", highlight=False)
    tell_waiting(waiting, console)


def tell_waiting(runs: Sequence[PlannedRun], console: Console) -> None:
    """Print what runs wait for, and how to continue."""
    for run in runs:
        console.print(
            f"{run.name} waits for {run.after}, whose ratio it uses. Repeat this command and those of the other "
            "shards once that row is complete.",
            highlight=False,
        )
