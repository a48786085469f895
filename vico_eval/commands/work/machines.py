"""A row over several machines, with one command per machine: `vico-eval run --accelerate-config FILE`, one file each.

The files differ in `machine_rank`. The command of machine 0 works as if it were alone and records each command that it
starts in a file under `runs/`, which is named after the address where the launchers meet. The other machines' commands
start the same with their own launchers and decide nothing: only machine 0 determines which documents are missing and
what is tried again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from vico_eval.commands.work.accelerate_file import Meeting
from vico_eval.commands.work.execute import Launch
from vico_eval.commands.work.plan import PlannedRun
from vico_eval.commands.work.processes import Process
from vico_eval.commands.work.table import Table
from vico_eval.errors import ConfigError
from vico_eval.files import write_json, write_text
from vico_eval.runs.holding import Held, alone_for_a_moment, is_free, take
from vico_eval.runs.json_text import read_json, validate
from vico_eval.schemas import Closed

FOLDER = Path(".machines")
"""Beside the folders of tables."""


class Order(Closed):
    """The current action of machine 0's command."""

    number: int
    """Number of the started command, from 1."""

    state: Literal["preparing", "running", "between", "over"]

    root: str
    """The folder of the table's runs."""

    rows: tuple[str, ...]
    """The names of its runs."""

    processes: int
    """Number of a row's processes on each machine."""

    run: str = ""
    """The run of the started command, for its environment."""

    words: tuple[str, ...] = ()
    """The started command without its launcher."""

    log: str = ""
    """The log of its output."""


class Place:
    """The place where the commands of several machines find each other."""

    def __init__(self, root: Path, meeting: Meeting) -> None:
        """
        Args:
            root: folder of the table's runs, beside those of other tables.
            meeting: the machines' meeting.
        """
        self.root, self.rank = root, meeting.rank
        self.folder = root.parent / FOLDER
        self.name = re.sub(r"[^A-Za-z0-9.]+", "-", meeting.address)

    @property
    def lock(self) -> Path:
        """The lock of machine 0's command."""
        return self.folder / f"{self.name}.lock"

    @property
    def own_lock(self) -> Path:
        """The lock of this machine's command."""
        return self.lock if self.rank == 0 else self.folder / f"{self.name}.machine{self.rank}.lock"

    @property
    def orders(self) -> Path:
        """The file of machine 0's orders."""
        return self.folder / f"{self.name}.json"

    @property
    def refusal(self) -> Path:
        """The file with the reason that another machine can't join."""
        return self.folder / f"{self.name}.refused"

    def refuse(self, reason: str) -> None:
        """Report to machine 0 that this one can't join."""
        write_text(self.refusal, f"machine {self.rank} can't join: {reason}")

    def order(self) -> Order | None:
        """Return machine 0's current order; None if no command of it is running.

        Raises:
            ReportError: the file isn't ours.
        """
        with alone_for_a_moment(self.lock):
            if is_free(self.lock) or not self.orders.exists():
                return None
            return self._read()

    def is_over(self) -> bool:
        """Return whether the last command of machine 0 has reported its end."""
        return self.orders.exists() and self._read().state == "over"

    def _read(self) -> Order:
        return validate(Order, read_json(self.orders), str(self.orders))


@contextmanager
def held_place(place: Place, begin: Callable[[], None] | None = None) -> Iterator[None]:
    """Ensure that this command is the only one of its machine.

    Args:
        place: the machines' meeting place.
        begin: called before other commands may read machine 0's orders.

    Raises:
        ConfigError: another command is running.
        NoLocks: the file system doesn't support locks.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    with alone_for_a_moment(place.lock):
        try:
            held = take(place.own_lock)
        except Held as error:
            raise ConfigError(
                f"another command is at work as machine {place.rank} of those that meet at {place.name}; wait for it, "
                "or stop it. Each machine has its own machine_rank in its --accelerate-config."
            ) from error
        if begin is not None:
            begin()
    try:
        yield
    finally:
        held.release()


def place_of(table: Table) -> Place | None:
    """Return where the commands of a table's machines find each other; None if this is the only command.

    Raises:
        ConfigError: the machines can't meet with their accelerate configuration.
    """
    meeting = table.options.launching.meeting
    return None if meeting is None else Place(table.runs_root, meeting)


@contextmanager
def leading(table: Table, launch: Launch) -> Iterator[Launch]:
    """Make the other machines, if any, start what this one, machine 0, starts.

    Args:
        table: the table that all of them fill.
        launch: starts a command on this machine.

    Raises:
        ConfigError: another command is running as machine 0.
    """
    place = place_of(table)
    if place is None:
        yield launch
        return
    leader = _Leader(table, place, launch)
    with held_place(place, leader.begin):
        yield leader.start
        leader.say(state="over")


class _Leader:
    """The command of machine 0."""

    def __init__(self, table: Table, place: Place, launch: Launch) -> None:
        self._place, self._launch = place, launch
        self._order = Order(
            number=0,
            state="preparing",
            root=str(place.root),
            rows=tuple(run.name for run in table.runs),
            processes=table.options.launching.processes_here,
        )

    def begin(self) -> None:
        """Remove what earlier commands left."""
        self._place.refusal.unlink(missing_ok=True)
        self.say(state="preparing")

    def say(self, **changes: object) -> None:
        """Record this command's current action."""
        self._order = self._order.model_copy(update=changes)
        write_json(self._place.orders, self._order.model_dump(mode="json"), indent=1)

    def start(self, run: PlannedRun, command: Sequence[str], log: Path) -> Process:
        """Start a command on all machines."""
        process = self._launch(run, command, log)
        words = tuple(command[len(run.launcher) :])
        self.say(number=self._order.number + 1, state="running", run=run.name, words=words, log=str(log))
        return _Led(process, self)

    def ended(self) -> None:
        """Record that the last command has ended here, so that no other machine starts it."""
        if self._order.state == "running":
            self.say(state="between")

    def check(self) -> None:
        """Raise ConfigError if another machine can't join."""
        if self._place.refusal.exists():
            raise ConfigError(self._place.refusal.read_text(encoding="utf-8"))


class _Led:
    """A process of machine 0, with the interface of `vico_eval.commands.work.processes.Process`."""

    def __init__(self, process: Process, leader: _Leader) -> None:
        self._process, self._leader = process, leader

    def poll(self) -> int | None:
        self._leader.check()
        status = self._process.poll()
        if status is not None:
            self._leader.ended()
        return status

    def stop(self) -> None:
        self._process.stop()

    def end(self) -> None:
        self._process.end()
