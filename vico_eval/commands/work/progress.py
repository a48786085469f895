"""Progress of rows on stderr: live bars on a terminal, otherwise a line per event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from vico_eval.commands.work.plan import PlannedRun


class Progress(Protocol):
    """Events of the rows."""

    def set_aside(self, run: PlannedRun, folder: Path, reason: str) -> None:
        """Answers that the run can't reuse were moved to `folder`."""

    def kept(self, run: PlannedRun) -> None:
        """The run was already complete."""

    def started(self, runs: Sequence[PlannedRun]) -> None:
        """A process that answers these runs has started."""

    def parted(self, run: PlannedRun, log: Path) -> None:
        """A process of several runs has ended without finishing this one, which continues alone."""

    def advanced(self, run: PlannedRun, documents: int) -> None:
        """This many documents are answered."""

    def finished(self, run: PlannedRun, seconds: float) -> None:
        """Every document is answered."""

    def failed(self, run: PlannedRun) -> None:
        """It ended with unanswered documents or benchmarks."""


class LiveProgress:
    """One bar per run, with documents, time and time left; a context manager."""

    def __init__(self, console: Console, runs: Sequence[PlannedRun]) -> None:
        width = max(len(run.name) for run in runs)
        self._bars = Bars(
            TextColumn(f"{{task.fields[row]:<{width}}}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {
            run.name: self._bars.add_task("waiting", row=run.name, total=run.documents, start=False) for run in runs
        }
        self._together: dict[str, Sequence[PlannedRun]] = {}
        """By run, the documents of its last process."""

        self._answered: dict[str, int] = {}

    def __enter__(self) -> LiveProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def set_aside(self, run: PlannedRun, folder: Path, reason: str) -> None:
        _say_set_aside(self._bars.console, run, folder, reason)

    def kept(self, run: PlannedRun) -> None:
        self._bars.update(self._tasks[run.name], description="kept", completed=run.documents)

    def started(self, runs: Sequence[PlannedRun]) -> None:
        for run in runs:
            self._together[run.name] = runs
            self._bars.start_task(self._tasks[run.name])
            self._bars.update(self._tasks[run.name], description="loading")

    def parted(self, run: PlannedRun, log: Path) -> None:
        _say_parted(self._bars.console, run, log)

    def advanced(self, run: PlannedRun, documents: int) -> None:
        self._answered[run.name] = documents
        description = "answering" if documents else "loading"
        if self._has_all(run):
            # Rows of one process are scored after the last of them is answered.
            description = "scoring" if all(map(self._has_all, self._together[run.name])) else "answered"
        self._bars.update(self._tasks[run.name], completed=documents, description=description)

    def _has_all(self, run: PlannedRun) -> bool:
        return run.documents is not None and self._answered.get(run.name, 0) >= run.documents

    def finished(self, run: PlannedRun, seconds: float) -> None:
        self._bars.update(self._tasks[run.name], description="[green]done[/]")
        self._bars.stop_task(self._tasks[run.name])

    def failed(self, run: PlannedRun) -> None:
        self._bars.update(self._tasks[run.name], description="[red]failed[/]")
        self._bars.stop_task(self._tasks[run.name])


class PlainProgress:
    """A line when a process starts, every half minute, and when a run ends; a context manager."""

    EVERY_S = 30.0

    def __init__(self, console: Console, runs: Sequence[PlannedRun]) -> None:
        self._console = console
        self._rows = len(runs)
        self._finished = 0
        self._started: dict[str, _Started] = {}
        """By run, its last process."""

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_aside(self, run: PlannedRun, folder: Path, reason: str) -> None:
        _say_set_aside(self._console, run, folder, reason)

    def kept(self, run: PlannedRun) -> None:
        self._finished += 1
        self._say(run.name, "complete already, kept")

    def started(self, runs: Sequence[PlannedRun]) -> None:
        is_again = runs[0].name in self._started
        self._started |= dict.fromkeys((run.name for run in runs), process := _Started(runs, time.monotonic()))
        self._say(process.name, "started again" if is_again else "started")

    def parted(self, run: PlannedRun, log: Path) -> None:
        _say_parted(self._console, run, log)

    def advanced(self, run: PlannedRun, documents: int) -> None:
        process = self._started[run.name]
        process.answered[run.name] = documents
        if time.monotonic() - process.told >= self.EVERY_S:
            process.told = time.monotonic()
            self._say(process.name, process.how_far)

    def finished(self, run: PlannedRun, seconds: float) -> None:
        self._finished += 1
        others = len(self._started[run.name].runs) - 1
        self._say(run.name, f"done in {seconds:.0f} s{f', in a pass with {others} more' if others else ''}")

    def failed(self, run: PlannedRun) -> None:
        self._say(run.name, "FAILED")

    def _say(self, name: str, what: str) -> None:
        self._console.print(f"[{self._finished}/{self._rows} runs] {name}: {what}")


@dataclass(slots=True)
class _Started:
    """A process, and the runs that it answers."""

    runs: Sequence[PlannedRun]
    told: float
    """When it was last reported."""

    answered: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        first, *others = self.runs
        return f"{first.name} and {len(others)} more" if others else first.name

    @property
    def how_far(self) -> str:
        counts = [run.documents for run in self.runs]
        known = "" if None in counts else f" of {sum(count for count in counts if count is not None)}"
        what = "answers" if len(self.runs) > 1 else "documents"
        return f"{sum(self.answered.values())}{known} {what}"


def _say_set_aside(console: Console, run: PlannedRun, folder: Path, reason: str) -> None:
    text = f"{run.name}: what was there is set aside as {folder}, since {reason}"
    console.print(text, soft_wrap=True)


def _say_parted(console: Console, run: PlannedRun, log: Path) -> None:
    console.print(
        f"{run.name}: its pass did not finish it; it continues in a process of its own. Log of the pass: {log}",
        soft_wrap=True,
    )
