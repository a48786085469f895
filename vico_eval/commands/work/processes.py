"""Commands as processes that are stopped with everything that they started."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

STOP_S = 20.0
"""What a process has to end by itself."""


class Process(Protocol):
    """A started command."""

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def stop(self) -> None:
        """Ask it to end, with everything that it started."""

    def end(self) -> None:
        """Wait until it has ended; not for ever."""


class Subprocess:
    """A command as a process group of its own, so that stopping it leaves no orphan behind accelerate's launcher.

    Its log begins with the command.
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
