"""Runs planned lmms-eval processes: several at once, each with a log; what is finished is kept, what fails is named."""

from __future__ import annotations

import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vico_eval.commands.inputs import Inputs
from vico_eval.commands.plan import Cell, PlannedRun
from vico_eval.commands.processes import Process, stop_all
from vico_eval.commands.progress import Progress
from vico_eval.commands.run_folders import Check, DocumentsFailed, prepare, problem_of, unfinished
from vico_eval.runs.follow import AnswerCount

LOG_TAIL_LINES = 15

SAME_REASON = 2
"""So many cells failing alone for one reason fail for a reason that is not theirs; the others are not tried."""

_LMMS_EVAL_ERROR = re.compile(r"Error during evaluation: (.*?)\.? Please set `--verbosity=DEBUG`", re.DOTALL)

Launch = Callable[[PlannedRun, Sequence[str], Path], Process]
"""Starts a command of a run whose output goes to a log file."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that was not finished."""

    run: PlannedRun
    cell: Cell
    reason: str
    log: Path | None = None
    """Of its process, where it had one."""

    kind: str = ""
    """The reason less what tells one cell from another."""


@dataclass(slots=True)
class _State:
    """How far a run is."""

    run: PlannedRun
    attempts: deque[tuple[Cell, ...]]
    """Cells to be answered, a process each."""

    answered: AnswerCount
    failures: list[Failure] = field(default_factory=list)
    looked_again: bool = False
    num_started: int = 0
    since: float = 0.0

    @property
    def log(self) -> Path:
        """Of the process that was started last."""
        return log_path(self.run, self.num_started)


def execute(
    runs: Sequence[PlannedRun],
    *,
    inputs: Inputs,
    jobs: int,
    launch: Launch,
    check: Check,
    progress: Progress,
    fresh: bool = False,
    poll_s: float = 0.25,
) -> list[Failure]:
    """Bring every run to completion, `jobs` at a time; cells finished with the same command and inputs are kept.

    A run's cells share a process. Where one of them fails, those that are unfinished are tried again alone.

    Args:
        inputs: what the runs read.
        fresh: repeat finished cells too.

    Returns:
        What failed, and what could not start because the run that it draws on failed.
    """
    for run in runs:
        prepare(run, inputs, progress, fresh=fresh)
    waiting = [_start_state(run, unfinished(run, inputs, check)[1]) for run in runs]
    settled: dict[str, _State] = {}
    running: dict[str, tuple[_State, tuple[Cell, ...], Process]] = {}
    try:
        while waiting or running:
            ready = [state for state in waiting if state.run.after is None or state.run.after in settled]
            for state in ready[: jobs - len(running)]:
                waiting.remove(state)
                if state.run.after is not None:
                    _drop_without_source(state, settled[state.run.after], check)
                if not state.attempts:
                    _look_again(state, check)
                if not state.attempts:
                    settled[state.run.name] = state
                    _tell(state, progress)
                    continue
                if state.num_started == 0:
                    state.since = time.monotonic()
                    progress.started(state.run)
                cells = state.attempts.popleft()
                state.num_started += 1
                running[state.run.name] = (state, cells, launch(state.run, state.run.command(cells), state.log))
            time.sleep(poll_s if running else 0)
            for name, (state, cells, process) in list(running.items()):
                progress.advanced(state.run, state.answered.count())
                status = process.poll()
                if status is not None:
                    del running[name]
                    _look_at(state, cells, status, check)
                    waiting.insert(0, state)
    finally:
        stop_all(process for _, _, process in running.values())
    return [failure for state in settled.values() for failure in state.failures]


def _start_state(run: PlannedRun, left: tuple[Cell, ...]) -> _State:
    return _State(run, deque([left] if left else []), AnswerCount(run.folder))


def _drop_without_source(state: _State, source: _State, check: Check) -> None:
    """Cells that draw on a run which has not finished them can't be answered."""
    missing = {cell.benchmark for cell in source.run.cells if problem_of(source.run, cell, check) is not None}
    for cells in state.attempts:
        for cell in cells:
            if cell.benchmark in missing:
                reason = f"it draws on {source.run.name}, which has no complete result of {cell.benchmark}."
                state.failures.append(Failure(state.run, cell, reason))
    left = (tuple(cell for cell in cells if cell.benchmark not in missing) for cells in state.attempts)
    state.attempts = deque(filter(None, left))


def _look_again(state: _State, check: Check) -> None:
    """A run whose ratio has changed since some of its cells were finished has to answer these anew; once."""
    if state.looked_again:
        return
    state.looked_again = True
    failed = {failure.cell.benchmark for failure in state.failures}
    lost = tuple(
        cell
        for cell in state.run.cells
        if cell.benchmark not in failed and problem_of(state.run, cell, check) is not None
    )
    if lost:
        state.attempts.append(lost)


def _look_at(state: _State, cells: tuple[Cell, ...], status: int, check: Check) -> None:
    """Sort the cells of an ended process into finished ones, failed ones and ones to be tried again alone."""
    crash = _crash(state.log, status)
    for cell in cells:
        problem = problem_of(state.run, cell, check)
        if problem is None:
            continue
        # lmms-eval writes results when everything is done: after a crash, those that there are were there before.
        is_final = len(cells) == 1 or (crash is None and isinstance(problem, DocumentsFailed))
        if not is_final:
            state.attempts.append((cell,))
        elif crash is not None:
            kind, reason = crash
            state.failures.append(Failure(state.run, cell, reason, state.log, kind))
        else:
            state.failures.append(Failure(state.run, cell, str(problem), state.log))
    kinds = [failure.kind for failure in state.failures if failure.kind]
    if len(kinds) >= SAME_REASON and len(set(kinds[-SAME_REASON:])) == 1:
        last = state.failures[-1]
        skipped = [cell for attempt in state.attempts for cell in attempt]
        state.failures += [Failure(state.run, cell, last.reason, last.log, last.kind) for cell in skipped]
        state.attempts.clear()


def _tell(state: _State, progress: Progress) -> None:
    if state.failures:
        progress.failed(state.run)
    elif state.num_started:
        progress.finished(state.run, time.monotonic() - state.since)
    else:
        progress.kept(state.run)


def log_path(run: PlannedRun, number: int = 1) -> Path:
    """Where the output of a run's process goes: beside its folder; `number` counts the processes of one command."""
    return run.folder.with_name(f"{run.name}.log" if number == 1 else f"{run.name}.{number}.log")


def by_hand(run: PlannedRun, cells: Sequence[Cell]) -> str:
    """A command as it is typed in a shell."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in run.environment.items()]
    return " ".join([*variables, shlex.join(run.command(cells))])


def describe(failures: Iterable[Failure]) -> str:
    """Failures in words, those of one run and reason together: what, why, the log and the command to repeat."""
    grouped: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        grouped.setdefault((failure.run.name, failure.kind or failure.reason), []).append(failure)
    texts = []
    for (name, _), group in grouped.items():
        first, cells = group[0], [failure.cell for failure in group]
        lines = [f"{name} on {', '.join(cell.benchmark for cell in cells)}: {first.reason}"]
        if first.log is not None:
            lines.append(f"  Log: {first.log}")
        lines.append(f"  To repeat it alone: {by_hand(first.run, cells)}")
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _crash(log: Path, status: int) -> tuple[str, str] | None:
    """How lmms-eval ended without results, in short and in words; None where it says nothing of it."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if said := _LMMS_EVAL_ERROR.search(text):
        return said[1], said[1]
    if status == 0:
        return None  # it ends with 0 after most failures; what is missing says more
    tail = "\n".join(f"  {line}" for line in text.splitlines()[-LOG_TAIL_LINES:])
    return f"status {status}", f"lmms-eval ended with status {status}; its last words:\n{tail}"
