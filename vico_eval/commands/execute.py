"""Runs planned lmms-eval processes: several at once, each with a log; what is finished is kept, what fails is named."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vico_eval.commands.plan import Cell, PlannedRun
from vico_eval.commands.progress import Progress
from vico_eval.errors import ReportError

LOG_TAIL_LINES = 15
REQUEST_FILE = "request.json"

SAME_REASON = 2
"""So many cells failing alone for one reason fail for a reason that is not theirs; the others are not tried."""

_LMMS_EVAL_ERROR = re.compile(r"Error during evaluation: (.*?)\.? Please set `--verbosity=DEBUG`", re.DOTALL)

Check = Callable[[Path, Cell], None]
"""Raises ReportError where a run's folder has no results of a cell, or documents of it without an answer."""


class Process(Protocol):
    """A started command."""

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def stop(self) -> None:
        """End it, with everything that it started."""


Launch = Callable[[PlannedRun, Sequence[str], Path], Process]
"""Starts a command of a run whose output goes to a log file."""


class Subprocess:
    """A command as a process group of its own, so that stopping it leaves no orphan behind accelerate's launcher."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that was not finished."""

    run: PlannedRun
    cell: Cell
    reason: str


@dataclass(slots=True)
class _State:
    """How far a run is."""

    run: PlannedRun
    attempts: deque[tuple[Cell, ...]]
    """Cells to be answered, a process each."""

    done: set[str] = field(default_factory=set)
    """Benchmarks that are finished."""

    failures: list[Failure] = field(default_factory=list)
    since: float = 0.0


def execute(
    runs: Sequence[PlannedRun],
    *,
    inputs: str,
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
        inputs: fingerprint of what the runs read: code, tasks, checkpoints.
        fresh: repeat finished cells too.

    Returns:
        What failed, and what could not start because the run that it draws on failed.
    """
    states = {run.name: _start_state(run, inputs, check, fresh) for run in runs}
    waiting = list(states.values())
    settled: dict[str, _State] = {}
    running: dict[str, tuple[_State, tuple[Cell, ...], Process]] = {}
    try:
        while waiting or running:
            ready = [state for state in waiting if state.run.after is None or state.run.after in settled]
            for state in ready[: jobs - len(running)]:
                waiting.remove(state)
                if state.run.after is not None:
                    _drop_without_source(state, settled[state.run.after])
                if not state.attempts:
                    _settle(state, settled, progress)
                    continue
                if not state.since:
                    state.since = time.monotonic()
                    progress.started(state.run)
                cells = state.attempts.popleft()
                command = state.run.command(cells)
                running[state.run.name] = (state, cells, launch(state.run, command, log_path(state.run)))
            time.sleep(poll_s if running else 0)
            for name, (state, cells, process) in list(running.items()):
                progress.advanced(state.run, documents_answered(state.run.folder))
                status = process.poll()
                if status is not None:
                    del running[name]
                    _look_at(state, cells, status, check)
                    waiting.insert(0, state)
    finally:
        for _, _, process in running.values():
            process.stop()
    return [failure for state in settled.values() for failure in state.failures]


def _start_state(run: PlannedRun, inputs: str, check: Check, fresh: bool) -> _State:
    """What of a run is left to do; its folder is set aside where it holds another command's or inputs' answers."""
    request = json.dumps({"arguments": list(run.arguments), "inputs": inputs}, indent=1)
    path = run.folder / REQUEST_FILE
    if fresh or not path.is_file() or path.read_text(encoding="utf-8") != request:
        if run.folder.exists():
            run.folder.rename(_free_name(run.folder))
        run.folder.mkdir(parents=True)
        path.write_text(request, encoding="utf-8")
    state = _State(run, deque())
    left = tuple(cell for cell in run.cells if _problem(state, cell, check) is not None)
    if left:
        state.attempts.append(left)
    return state


def _free_name(folder: Path) -> Path:
    number = 1
    while (name := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    return name


def _drop_without_source(state: _State, source: _State) -> None:
    """Cells that draw on a run which has not finished them can't be answered."""
    attempts = deque(tuple(cell for cell in cells if cell.benchmark in source.done) for cells in state.attempts)
    for cells in state.attempts:
        for cell in cells:
            if cell.benchmark not in source.done:
                reason = f"it draws on {source.run.name}, which has no result of {cell.benchmark}."
                state.failures.append(Failure(state.run, cell, reason))
    state.attempts = deque(filter(None, attempts))


def _look_at(state: _State, cells: tuple[Cell, ...], status: int, check: Check) -> None:
    """Sort the cells of an ended process into finished ones, failed ones and ones to be tried again alone."""
    problems = {}
    for cell in cells:
        if (problem := _problem(state, cell, check)) is not None:
            problems[cell.benchmark] = problem
    left = [cell for cell in cells if cell.benchmark in problems]
    if not left:
        return
    reason = _reason(state.run, status)
    if len(cells) > 1:
        # The documents of a cell that has results failed, and would fail again.
        again = [cell for cell in left if not isinstance(problems[cell.benchmark], DocumentsFailed)]
        state.attempts.extend((cell,) for cell in again)
        left = [cell for cell in left if cell not in again]
    for cell in left:
        problem = problems[cell.benchmark]
        is_own = isinstance(problem, DocumentsFailed) or reason is None
        state.failures.append(Failure(state.run, cell, str(problem) if is_own else str(reason)))
    reasons = [failure.reason for failure in state.failures]
    if len(reasons) >= SAME_REASON and len(set(reasons[-SAME_REASON:])) == 1:
        state.failures += [Failure(state.run, cell, reasons[-1]) for cells in state.attempts for cell in cells]
        state.attempts.clear()


class DocumentsFailed(ReportError):
    """A cell has results, but documents of it have no answer."""


def _problem(state: _State, cell: Cell, check: Check) -> ReportError | None:
    """What keeps a cell from being finished."""
    try:
        check(state.run.folder, cell)
    except ReportError as error:
        return error
    state.done.add(cell.benchmark)
    return None


def _settle(state: _State, settled: dict[str, _State], progress: Progress) -> None:
    settled[state.run.name] = state
    if state.failures:
        progress.failed(state.run)
    elif state.since:
        progress.finished(state.run, time.monotonic() - state.since)
    else:
        progress.kept(state.run)


def documents_answered(folder: Path) -> int:
    """Documents of a run that have an answer so far: lines of its `answers.rank*.jsonl`."""
    count = 0
    for path in folder.glob("answers.rank*.jsonl"):
        with path.open("rb") as lines:
            count += sum(1 for line in lines if line.strip())
    return count


def log_path(run: PlannedRun) -> Path:
    """Where a run's output goes: beside its folder."""
    return run.folder.with_name(f"{run.name}.log")


def by_hand(run: PlannedRun, cells: Sequence[Cell]) -> str:
    """A command as it is typed in a shell."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in run.environment.items()]
    return " ".join([*variables, shlex.join(run.command(cells))])


def describe(failures: Iterable[Failure]) -> str:
    """Failures in words, those of one run and reason together: what, why, the log and the command to repeat."""
    grouped: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        grouped.setdefault((failure.run.name, failure.reason), []).append(failure)
    texts = []
    for (name, reason), group in grouped.items():
        run, cells = group[0].run, [failure.cell for failure in group]
        titles = ", ".join(cell.benchmark for cell in cells)
        texts.append(
            f"{name} on {titles}: {reason}\n  Log: {log_path(run)}\n  To repeat it alone: {by_hand(run, cells)}"
        )
    return "\n\n".join(texts)


def _reason(run: PlannedRun, status: int) -> str | None:
    """Why lmms-eval ended without results, by its log; None where it says nothing."""
    log = log_path(run)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if said := _LMMS_EVAL_ERROR.search(text):
        return said[1]
    if status == 0:
        return None  # it ends with 0 after most failures; what is missing says more
    tail = "\n".join(f"  {line}" for line in text.splitlines()[-LOG_TAIL_LINES:])
    return f"lmms-eval ended with status {status}; its last words:\n{tail}"
