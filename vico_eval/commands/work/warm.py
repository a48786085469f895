"""Passes in processes with lmms-eval preloaded (`vico_eval.harnesses.lmms_eval.warm`)."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from vico_eval.commands.work.processes import STOP_S

PROGRAM = (sys.executable, "-m", "vico_eval.harnesses.lmms_eval.warm")

LOST = -signal.SIGKILL
"""Status of a pass whose end is unknown, because the preloaded process is gone; the pass is then killed."""

LOOK_S = 0.05


class WarmStart:
    """Loads lmms-eval in the background and starts passes from that process; a context manager."""

    def __init__(self, environment: Mapping[str, str], program: Sequence[str] = PROGRAM) -> None:
        """
        Args:
            environment: environment variables of all passes, in addition to this process's.
            program: the program that receives orders.
        """
        self._server = subprocess.Popen(
            list(program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,
            text=True,
        )
        self._num_orders = 0
        self._pids: dict[int, int] = {}
        self._statuses: dict[int, int] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> WarmStart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.wait()
        self._listener.join()

    @property
    def is_alive(self) -> bool:
        """Return whether it can start passes."""
        return self._server.poll() is None

    def start(self, command: Sequence[str], config: Path, log: Path) -> WarmProcess:
        """Start a pass.

        Args:
            command: the equivalent command, for the log.
            config: the file of the pass.
            log: the log of its output.
        """
        log.write_text(f"$ {shlex.join(command)}\n\n", encoding="utf-8")
        self._num_orders += 1
        order = {"number": self._num_orders, "config": str(config), "log": str(log)}
        assert self._server.stdin is not None
        with suppress(BrokenPipeError):  # then it is lost, which `status` reports
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
        return WarmProcess(self, self._num_orders)

    def status(self, number: int) -> int | None:
        """Return a pass's exit status; None while it runs."""
        is_listening = self._listener.is_alive()  # checked first: the last message may be this one's end
        return self._statuses.get(number, None if is_listening else LOST)

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to all processes of a pass. A pass that hasn't started ends with the preloaded process."""
        pid = self._pids.get(number)
        if pid is None:
            self._server.kill()
        else:
            with suppress(ProcessLookupError):
                os.killpg(pid, what)

    def _listen(self) -> None:
        """Receive the states of passes until the preloaded process is gone, then end those that it left behind."""
        assert self._server.stdout is not None
        for line in self._server.stdout:
            told = json.loads(line)
            if told["pid"] is not None:
                self._pids[told["number"]] = told["pid"]
            if told["status"] is not None:
                self._statuses[told["number"]] = told["status"]
        for number, pid in self._pids.items():
            if number not in self._statuses:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


class WarmProcess:
    """A pass, with the interface of `vico_eval.commands.work.processes.Process`."""

    def __init__(self, origin: WarmStart, number: int) -> None:
        self._origin, self._number = origin, number

    def poll(self) -> int | None:
        return self._origin.status(self._number)

    def stop(self) -> None:
        if self.poll() is None:
            self._origin.signal(self._number, signal.SIGTERM)

    def end(self) -> None:
        until = time.monotonic() + STOP_S
        while self.poll() is None and time.monotonic() < until:
            time.sleep(LOOK_S)
        if self.poll() is None:
            self._origin.signal(self._number, signal.SIGKILL)
