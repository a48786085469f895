"""How far the rows are, on stderr: live bars on a terminal, a line an event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from vico_eval.commands.plan import PlannedRun


class Progress(Protocol):
    """What happens to the rows."""

    def set_aside(self, run: PlannedRun, folder: Path, reason: str) -> None:
        """Answers that the run can't go on with are kept in `folder`."""

    def kept(self, run: PlannedRun) -> None:
        """The run was complete already."""

    def started(self, run: PlannedRun) -> None:
        """Its process has started."""

    def advanced(self, run: PlannedRun, documents: int) -> None:
        """So many documents have an answer."""

    def finished(self, run: PlannedRun, seconds: float) -> None:
        """Every document has an answer."""

    def failed(self, run: PlannedRun) -> None:
        """It ended, and a document or a whole benchmark has none."""


class LiveProgress:
    """One bar a row, with documents, time and time left; a context manager."""

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

    def __enter__(self) -> LiveProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def set_aside(self, run: PlannedRun, folder: Path, reason: str) -> None:
        _say_set_aside(self._bars.console, run, folder, reason)

    def kept(self, run: PlannedRun) -> None:
        self._bars.update(self._tasks[run.name], description="kept", completed=run.documents)

    def started(self, run: PlannedRun) -> None:
        self._bars.start_task(self._tasks[run.name])
        self._bars.update(self._tasks[run.name], description="loading")

    def advanced(self, run: PlannedRun, documents: int) -> None:
        description = "answering" if documents else "loading"
        if run.documents is not None and documents >= run.documents:
            description = "scoring"
        self._bars.update(self._tasks[run.name], completed=documents, description=description)

    def finished(self, run: PlannedRun, seconds: float) -> None:
        self._bars.update(self._tasks[run.name], description="[green]done[/]")
        self._bars.stop_task(self._tasks[run.name])

    def failed(self, run: PlannedRun) -> None:
        self._bars.update(self._tasks[run.name], description="[red]failed[/]")
        self._bars.stop_task(self._tasks[run.name])


class PlainProgress:
    """A line when a row starts, every half minute, and when it ends; a context manager."""

    EVERY_S = 30.0

    def __init__(self, console: Console, runs: Sequence[PlannedRun]) -> None:
        self._console = console
        self._rows = len(runs)
        self._finished = 0
        self._told: dict[str, float] = {}

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_aside(self, run: PlannedRun, folder: Path, reason: str) -> None:
        _say_set_aside(self._console, run, folder, reason)

    def kept(self, run: PlannedRun) -> None:
        self._finished += 1
        self._say(run, "complete already, kept")

    def started(self, run: PlannedRun) -> None:
        self._told[run.name] = time.monotonic()
        self._say(run, "started")

    def advanced(self, run: PlannedRun, documents: int) -> None:
        if time.monotonic() - self._told[run.name] >= self.EVERY_S:
            self._told[run.name] = time.monotonic()
            self._say(run, f"{documents}{'' if run.documents is None else f' of {run.documents}'} documents")

    def finished(self, run: PlannedRun, seconds: float) -> None:
        self._finished += 1
        self._say(run, f"done in {seconds:.0f} s")

    def failed(self, run: PlannedRun) -> None:
        self._say(run, "FAILED")

    def _say(self, run: PlannedRun, what: str) -> None:
        self._console.print(f"[{self._finished}/{self._rows} runs] {run.name}: {what}")


def _say_set_aside(console: Console, run: PlannedRun, folder: Path, reason: str) -> None:
    text = f"{run.name}: what was there is set aside as {folder}, since {reason}"
    console.print(text, soft_wrap=True)
