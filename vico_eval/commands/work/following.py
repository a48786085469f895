"""The command of a machine that follows machine 0; see `vico_eval.commands.work.machines`."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from vico_eval.commands.work import passes
from vico_eval.commands.work.checks import check_device
from vico_eval.commands.work.execute import Launch
from vico_eval.commands.work.machines import Order, Place, held_place
from vico_eval.commands.work.processes import Process
from vico_eval.commands.work.run_folders import check_cells, unfinished
from vico_eval.commands.work.starting import environment_of, num_cores, starting
from vico_eval.commands.work.table import Table
from vico_eval.errors import ConfigError, OutputError

LOOK_S = 0.5
"""Interval at which machine 0 is checked, in seconds."""

WAIT_S = 600.0
"""How long to wait for it in seconds, the same as launchers wait for each other."""

PROGRAMS = (passes.PROGRAM, "lmms_eval")
"""The process that follows machine 0."""


def follow(table: Table, place: Place, console: Console, wait_s: float = WAIT_S) -> None:
    """Start the processes that machine 0 starts, until its command ends or disappears.

    Args:
        table: the table that machine 0 fills.
        place: the machines' meeting place.
        console: for messages.
        wait_s: how long to wait for machine 0, in seconds.

    Raises:
        ConfigError: machine 0 fills another table, or the device can't be used.
        OutputError: machine 0 doesn't start, or stopped early.
    """
    launching = table.options.launching
    if not launching.prefix:  # which may start them on another machine
        check_device(table.device)
    environment = environment_of(num_cores() // launching.processes_here, is_offline=table.is_offline)
    with held_place(place), starting([], environment) as launch:
        follower = _Follower(table, place, launch, console)
        try:
            if _wait(table, place, console, wait_s):
                while (order := place.order()) is not None and order.state != "over":
                    follower.obey(order)
                    time.sleep(LOOK_S)
                if order is not None:
                    follower.end()
        finally:
            follower.stop()
    if follower.has_worked and not place.is_over():
        raise OutputError(
            "the command of machine 0 stopped early. Repeat both commands to resume; every answer so far is kept."
        )


class _Follower:
    """The processes on this machine."""

    def __init__(self, table: Table, place: Place, launch: Launch, console: Console) -> None:
        self._table, self._place, self._launch, self._console = table, place, launch, console
        self._runs = {run.name: run for run in table.runs}
        self._number = 0
        self._process: Process | None = None

    @property
    def has_worked(self) -> bool:
        """Whether machine 0 has started."""
        return self._number > 0

    def obey(self, order: Order) -> None:
        """Follow machine 0's order."""
        if order.state == "running" and order.number == self._number:
            return
        self.end()
        if order.state == "running":
            self._check(order)
            self._start(order)

    def end(self) -> None:
        """Wait for the process here to end, which it does by itself after that of machine 0."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def stop(self) -> None:
        """Stop it now."""
        if self._process is not None:
            self._process.stop()
            self.end()

    def _check(self, order: Order) -> None:
        """Check that machine 0 fills the same table from the same inputs."""
        reason = _difference(order, self._table)
        if reason is not None:
            self._place.refuse(reason)
            raise ConfigError(f"machine {self._place.rank} can't join machine 0: {reason}")

    def _start(self, order: Order) -> None:
        run, log = self._runs[order.run], Path(order.log)
        log = log.with_name(f"{log.stem}.machine{self._place.rank}.log")
        self._number = order.number
        self._process = self._launch(run, (*run.launcher, *order.words), log)
        self._console.print(f"Started with machine 0: {run.name}. Log: {log}", highlight=False)


def _wait(table: Table, place: Place, console: Console, wait_s: float) -> bool:
    """Wait for machine 0; return whether it has anything to do."""
    until = time.monotonic() + wait_s
    if place.order() is None:
        # Without machine 0 nothing is answered, so one check is enough.
        if not table.options.fresh and not _has_work(table):
            console.print("All rows are complete.", highlight=False)
            return False
        console.print("Waiting for the command of machine 0, to be started in the same folder.", highlight=False)
    while place.order() is None:
        if time.monotonic() > until:
            raise OutputError(
                f"the command of machine 0, which meets the others at {place.name}, has not started within "
                f"{wait_s:.0f} s. Start it with the same options, in the same folder on a shared file system."
            )
        time.sleep(LOOK_S)
    return True


def _has_work(table: Table) -> bool:
    return any(unfinished(run, table.inputs, check_cells) != (None, ()) for run in table.runs)


def _difference(order: Order, table: Table) -> str | None:
    """Return how machine 0's table differs from this command's; None if it doesn't."""
    rows = tuple(run.name for run in table.runs)
    if order.root != str(table.runs_root):
        return f"it fills {order.root}, and this one {table.runs_root}. Give both the same options."
    if order.rows != rows:
        return f"it has the rows {', '.join(order.rows)}, and this one {', '.join(rows)}. Give both the same options."
    processes = table.options.launching.processes_here
    if order.processes != processes:
        return f"it starts {order.processes} process(es) on each machine, and this one {processes}."
    if order.words[0] not in PROGRAMS:
        return f"it starts {order.words[0]}; expected {' or '.join(PROGRAMS)}."
    for run in table.runs:
        reason, _ = unfinished(run, table.inputs, lambda *_: None)
        if reason is not None:
            return f"what machine 0 has begun of {run.name} can't be gone on with here, since {reason}."
    return None
