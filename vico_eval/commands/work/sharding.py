"""`vico-eval run --shard`: a part of a table's documents, and the scores of rows whose parts are all there.

Commands know of each other by the runs' folders alone. Each answers its part of every row. Whoever ends a row's last
part has it scored, by a process that finds all answers there and reads no weights; only documents that could not be
answered are asked once more, and the row's cells then say that they failed. A row that draws on another one
(`ratio_from`) begins when that one is scored, on the benchmarks that have all answers there.
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
    """Answer a shard of every row that need not wait, and score the rows that are complete by that.

    Returns:
        What could not be done; and whether all rows have been scored, be it with documents that failed.

    Raises:
        ConfigError: another command has the same shard, or shards of another number are at work.
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
        # The row's score says what its shards have said, of all its documents.
        failures = [failure for failure in failures if failure.run.name not in scored] + not_scored
        if failures or not scored:  # else what waited for a row may begin
            break
    unscored = [run for run in table.runs if not _is_settled(run, table)]
    _tell(unscored, shard, console)
    return failures + _without_ratio(table, unscored), not unscored


def shard_goal(shard: Shard) -> Goal:
    """That a shard has asked all its documents."""
    return Goal(partial(_check_shard, shard), partial(_outcome, shard), shard)


def split_ready(table: Table) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """A table's runs that wait for nobody (any more), and those that draw on one which is not scored yet."""
    settled = {run.name for run in table.runs if _is_settled(run, table)}
    waiting = [run for run in table.runs if run.after is not None and not {run.name, run.after} & settled]
    ready = [replace(run, after=None, cells=_possible(run, table)) for run in table.runs if run not in waiting]
    return [run for run in ready if run.cells], waiting


def _check_shard(shard: Shard, folder: Path, cells: Sequence[Cell]) -> None:
    """As `check_cells`, of the documents of a shard.

    Raises:
        DocumentsFailed: some could not be answered.
        ReportError: not all have been asked.
    """
    done = read_shards(folder).get(shard, {})
    wanted = [task for cell in cells for task in cell.results]
    missing = [task for task in wanted if task not in done]
    if missing:
        try:
            check_cells(folder, cells)
        except ReportError as error:
            raise ReportError(f"shard {shard} has not asked all its documents of {', '.join(missing)}.") from error
        return  # scored, in whichever way
    if failed := sum(done[task].failed for task in wanted):
        number = sum(done[task].documents for task in wanted)
        raise DocumentsFailed(f"{failed} of {number} documents of shard {shard} have no answer.")


def _outcome(shard: Shard, folder: Path) -> list[int]:
    """When the shard was last gone through."""
    path = shard_file(folder, shard)
    return [path.stat().st_mtime_ns] if path.exists() else []


def _left(run: PlannedRun, table: Table, goal: Goal) -> Sequence[Cell]:
    return unfinished(run, table.inputs, goal.check)[1]


def _is_settled(run: PlannedRun, table: Table) -> bool:
    """Whether a run has been scored, as far as it can be: documents may have failed."""
    source = _source(run, table)
    if source is not None and not _is_settled(source, table):
        return unfinished(run, table.inputs, check_cells) == (None, ())
    possible = _possible(run, table)
    reason, _ = unfinished(run, table.inputs, check_cells)
    problems = problems_of(run, possible, check_cells) if possible else []
    return reason is None and all(isinstance(problem, DocumentsFailed) for _, problem in problems)


def _possible(run: PlannedRun, table: Table) -> tuple[Cell, ...]:
    """The cells of a run that draw on nothing which failed in the run that it draws on."""
    source = _source(run, table)
    missing = () if source is None else unfinished(source, table.inputs, check_cells)[1]
    lost = {cell.benchmark for cell in missing}
    return tuple(cell for cell in run.cells if cell.benchmark not in lost)


def _source(run: PlannedRun, table: Table) -> PlannedRun | None:
    """The run of the table that a run draws on."""
    return next((other for other in table.runs if other.name == run.after), None)


def _without_ratio(table: Table, unscored: Sequence[PlannedRun]) -> list[Failure]:
    """The cells that could not be answered because the run that theirs draws on failed there."""
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
    """Set aside what the run can't go on with, before other shards begin.

    Raises:
        ConfigError: others have begun, on something else.
    """
    reason, _ = unfinished(run, table.inputs, check_cells)
    if reason is not None and others_at_work(lock_file(run), shard):
        raise ConfigError(f"other shards work on {run.folder}, and this one can't join them, since {reason}.")
    prepare(run, table.inputs, PlainProgress(console, [run]), fresh=False)


def _score(table: Table, runs: Sequence[PlannedRun], console: Console) -> tuple[set[str], list[Failure]]:
    """Score the runs whose shards are all there, unless another command does; which these were, and failures."""
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
    """Whether shards have asked all documents.

    Raises:
        ReportError: they say so, but answers are missing.
    """
    tasks = [task for cell in cells for task in cell.results]
    done = read_shards(run.folder)
    of = complete_number(done, tasks)
    if of is not None:
        check_merged(run.folder, done, tasks, of)
    return of is not None


def _tell(unscored: Sequence[PlannedRun], shard: Shard, console: Console) -> None:
    """Say what is still to come, and from whom."""
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
    """Say what runs wait for, and how to go on."""
    for run in runs:
        console.print(
            f"{run.name} waits for {run.after}, whose ratio it uses. Repeat this command and those of the other "
            "shards once that row is complete.",
            highlight=False,
        )
