"""Commands as processes, which are stopped together with their child processes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

STOP_S = 20.0
"""Seconds that a process has to end by itself."""


class Process(Protocol):
    """A started command."""

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def stop(self) -> None:
        """Ask it and its child processes to end."""

    def end(self) -> None:
        """Wait until it has ended, and kill it after a timeout."""


class Subprocess:
    """A command in its own process group, so that stopping it leaves no orphans of accelerate's launcher.

    Its log starts with the command.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("wb") as output:
            output.write(f"$ {shlex.join(command)}\n\n".encode())
            output.flush()
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

    def end(self) -> None:
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def stop_all(processes: Iterable[Process]) -> None:
    """Stop processes together."""
    processes = list(processes)
    for process in processes:
        process.stop()
    for process in processes:
        process.end()
