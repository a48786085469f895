"""Execution of planned lmms-eval processes: several at once, each with a log. Finished cells are kept, failures
reported."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vico_eval.commands.work.failures import Failure, crash, without_source
from vico_eval.commands.work.goals import Goal
from vico_eval.commands.work.inputs import Inputs
from vico_eval.commands.work.passes import Pass, most_work_first
from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.commands.work.processes import Process, stop_all
from vico_eval.commands.work.progress import Progress
from vico_eval.commands.work.run_folders import Check, DocumentsFailed, prepare, problems_of
from vico_eval.runs.follow import AnswerCount
from vico_eval.runs.shards import Shard

SAME_REASON = 2
"""After this many cells failed alone for the same reason, the cause isn't the cells, and the others are not tried."""

Launch = Callable[[PlannedRun, Sequence[str], Path], Process]
"""Starts a command in a run's environment, with its output in a log file."""


@dataclass(eq=False, slots=True)
class _State:
    """The progress of a run."""

    run: PlannedRun
    answered: AnswerCount
    attempts: deque[tuple[Cell, ...]] = field(default_factory=deque)
    """Groups of cells, answered by one process each."""

    failures: list[Failure] = field(default_factory=list)
    looked_again: bool = False
    num_started: int = 0
    """Number of its own processes so far."""

    is_alone: bool = True
    """Whether its next process runs its own command instead of a pass."""

    since: float | None = None
    """Start of its first process."""


@dataclass(frozen=True, slots=True)
class _Running:
    """A process, and the runs whose cells it answers."""

    states: tuple[_State, ...]
    cells: tuple[Cell, ...]
    process: Process
    log: Path
    outcomes_before: Mapping[str, frozenset[object]]
    """By run, the evidence of earlier processes that went through all documents, as of the start."""


def execute(
    runs: Sequence[PlannedRun],
    passes: Sequence[Pass],
    *,
    inputs: Inputs,
    jobs: int,
    launch: Launch,
    goal: Goal,
    progress: Progress,
    fresh: bool = False,
    poll_s: float = 0.25,
) -> list[Failure]:
    """Complete every run, `jobs` processes at a time. Finished cells are kept.

    The runs of a pass share a process, and so do a run's cells. After it has ended, each run is checked separately.
    Unfinished cells are tried again by a process of their run alone, first together, then one by one.

    Args:
        runs: of one table.
        passes: the passes to execute.
        inputs: the runs' inputs.
        goal: the results that are expected.
        fresh: also repeat finished cells.

    Returns:
        The failures, including cells that could not start because the run that they depend on failed.
    """
    for run in runs:
        prepare(run, inputs, progress, fresh=fresh)
    return _Execution(runs, passes, jobs=jobs, launch=launch, goal=goal, progress=progress).finish(poll_s)


class _Execution:
    """The processes of a command, and the runs that wait for a process."""

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        passes: Sequence[Pass],
        *,
        jobs: int,
        launch: Launch,
        goal: Goal,
        progress: Progress,
    ) -> None:
        self._jobs, self._launch, self._goal, self._progress = jobs, launch, goal, progress
        states = {run.name: _State(run, AnswerCount(run.folder)) for run in runs}
        for one in passes:
            for run in one.runs:
                states[run.name].attempts.append(one.cells)
                states[run.name].is_alone = one.is_alone
        shared = [tuple(states[run.name] for run in one.runs) for one in most_work_first(passes)]
        self._waiting = [(state,) for state in states.values() if not state.attempts] + shared
        """Runs that share their next process, in order of start."""
        self._running: list[_Running] = []
        self._settled: dict[str, _State] = {}

    def finish(self, poll_s: float) -> list[Failure]:
        """Execute everything."""
        try:
            while self._waiting or self._running:
                self._settle()
                while len(self._running) < self._jobs and (states := self._next()):
                    self._begin(states)
                time.sleep(poll_s if self._running else 0)
                for running in self._running.copy():
                    self._look(running)
        finally:
            stop_all(running.process for running in self._running)
        return [failure for state in self._settled.values() for failure in state.failures]

    def _is_ready(self, states: tuple[_State, ...]) -> bool:
        return all(state.run.after is None or state.run.after in self._settled for state in states)

    def _settle(self) -> None:
        """Mark runs without remaining cells as done, and those that only waited for them."""
        while done := [one for one in self._waiting if not one[0].attempts and self._is_ready(one)]:
            for states in done:
                (state,) = states
                if lost := _lost(state, self._goal.check):
                    state.attempts.append(lost)
                    continue
                self._waiting.remove(states)
                self._settled[state.run.name] = state
                self._tell(state)

    def _next(self) -> tuple[_State, ...] | None:
        return next((states for states in self._waiting if states[0].attempts and self._is_ready(states)), None)

    def _begin(self, states: tuple[_State, ...]) -> None:
        """Start the next process of runs, or separate runs that no longer have the same cells left."""
        place = self._waiting.index(states)
        missing = {name: self._missing(name) for name in {state.run.after for state in states} if name is not None}
        groups: dict[tuple[str, ...], list[_State]] = {}
        for state in states:
            if state.run.after is not None:
                _drop(state, state.run.after, missing[state.run.after])
            cells = state.attempts[0] if state.attempts else ()
            groups.setdefault(tuple(cell.benchmark for cell in cells), []).append(state)
        idle = groups.pop((), [])
        parts = [*((state,) for state in idle), *map(tuple, groups.values())]
        self._waiting[place : place + 1] = parts
        if len(groups) == 1:
            self._waiting.remove(parts[-1])
            self._start(parts[-1])

    def _missing(self, name: str) -> set[str]:
        """Return the benchmarks that a settled run has not finished."""
        source = self._settled[name].run
        return {cell.benchmark for cell, _ in problems_of(source, source.cells, self._goal.check)}

    def _start(self, states: tuple[_State, ...]) -> None:
        runs = tuple(state.run for state in states)
        cells = states[0].attempts[0]
        one = Pass(runs=runs, cells=cells, is_alone=states[0].is_alone, shard=self._goal.shard)
        if not one.is_alone or one.shard is not None:
            one.write()
        for state in states:
            state.attempts.popleft()
            state.since = time.monotonic() if state.since is None else state.since
            state.is_alone = True
            state.num_started += len(states) == 1
        log = one.log if len(states) > 1 else log_path(runs[0], states[0].num_started, one.shard)
        before = {run.name: frozenset(self._goal.outcomes(run.folder)) for run in runs}
        self._progress.started(runs)
        self._running.append(_Running(states, cells, self._launch(runs[0], one.command, log), log, before))

    def _look(self, running: _Running) -> None:
        """Report a process's progress. After it has ended, its runs continue one by one."""
        for state in running.states:
            self._progress.advanced(state.run, state.answered.count())
        status = running.process.poll()
        if status is None:
            return
        self._running.remove(running)
        for state in running.states:
            _sort(state, running, status, self._goal)
            if len(running.states) > 1 and state.attempts:
                self._progress.parted(state.run, running.log)
        self._waiting[:0] = [(state,) for state in running.states]

    def _tell(self, state: _State) -> None:
        if state.failures:
            self._progress.failed(state.run)
        elif state.since is not None:
            self._progress.finished(state.run, time.monotonic() - state.since)
        else:
            self._progress.kept(state.run)


def _drop(state: _State, source: str, missing: set[str]) -> None:
    """Drop cells that depend on another run's unfinished cells."""
    for cells in state.attempts:
        for cell in cells:
            if cell.benchmark in missing:
                state.failures.append(Failure(state.run, cell, without_source(source, cell)))
    left = (tuple(cell for cell in cells if cell.benchmark not in missing) for cells in state.attempts)
    state.attempts = deque(filter(None, left))


def _lost(state: _State, check: Check) -> tuple[Cell, ...]:
    """Repeat finished cells of a run whose ratio has changed since then, once."""
    if state.looked_again:
        return ()
    state.looked_again = True
    failed = {failure.cell.benchmark for failure in state.failures}
    cells = [cell for cell in state.run.cells if cell.benchmark not in failed]
    return tuple(cell for cell, _ in problems_of(state.run, cells, check))


def _sort(state: _State, ended: _Running, status: int, goal: Goal) -> None:
    """Sort the cells of an ended process into finished ones, failed ones and ones to try again."""
    unfinished = problems_of(state.run, ended.cells, goal.check)
    # They appear at the end of a run; earlier ones are not from this process.
    has_results = not ended.outcomes_before[state.run.name].issuperset(goal.outcomes(state.run.folder))
    again = []
    for cell, problem in unfinished:
        if has_results and isinstance(problem, DocumentsFailed):
            state.failures.append(Failure(state.run, cell, str(problem), ended.log))
        else:
            again.append((cell, problem))
    if len(ended.states) > 1:
        state.attempts.extend([tuple(cell for cell, _ in again)] if again else [])
    elif len(ended.cells) > 1:
        state.attempts.extend((cell,) for cell, _ in again)
    elif again:
        ((cell, problem),) = again
        kind, reason = crash(ended.log, status) or ("", str(problem))
        state.failures.append(Failure(state.run, cell, reason, ended.log, kind))
        _give_up(state)


def _give_up(state: _State) -> None:
    """Stop trying further cells if the last ones failed alone for the same reason."""
    kinds = [failure.kind for failure in state.failures if failure.kind]
    if len(kinds) >= SAME_REASON and len(set(kinds[-SAME_REASON:])) == 1:
        last = state.failures[-1]
        skipped = [cell for attempt in state.attempts for cell in attempt]
        state.failures += [Failure(state.run, cell, last.reason, last.log, last.kind) for cell in skipped]
        state.attempts.clear()


def log_path(run: PlannedRun, number: int = 1, shard: Shard | None = None) -> Path:
    """Return the log of a run's own process, beside the run's folder; `number` counts the processes of a command."""
    name = run.name if shard is None else f"{run.name}.{shard.name}"
    return run.folder.with_name(f"{name}.log" if number == 1 else f"{name}.{number}.log")
