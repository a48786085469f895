"""Python programs that begin with the libraries loaded: lmms-eval's take 15 s, and the work of most tests less.

A server loads them once for all tests of a process and copies itself for each program. That is for tests of what a
program does; where its start is what is tested, it is started as people do.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

from vico_eval.commands.work.processes import STOP_S

LIBRARIES = (
    "vico_eval.training.stages",
    "vico_eval.harnesses.lmms_eval.run_pass",
    "vico_eval.harnesses.lmms_eval.models",
    "nltk",  # which lmms-eval asks for at its first score
)
"""Loaded before a program begins, with all that they import."""

PROGRAM = "program"
"""What the copy of the server finds its orders under."""


class Program:
    """A program that runs, in a process group of its own; a `vico_eval.commands.work.processes.Process` too."""

    def __init__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """
        Args:
            words: what would stand behind `python`: a script or `-m MODULE` or `-c CODE`, and arguments.
            log: what it prints is added to it.
            environment: all of it.
        """
        orders = {PROGRAM: (tuple(map(str, words)), str(log), dict(environment), str(Path.cwd()))}
        context = multiprocessing.get_context("forkserver")
        # The function is of the standard library: a copy need not find the folder of the tests.
        self._process = context.Process(target=runpy.run_path, args=(__file__, orders, "__main__"))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float) -> int:
        """The exit status; a program that takes longer is killed."""
        self._process.join(timeout_s)
        if self.poll() is None:
            self.kill()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> None:
        """End it and what it started."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def end(self) -> None:
        self.wait(STOP_S)

    def _signal(self, what: signal.Signals) -> None:
        while self.poll() is None:
            try:
                os.killpg(self._process.pid, what)
                return
            except ProcessLookupError:  # it has not made its group yet
                time.sleep(0.01)


def load() -> None:
    """Have the server begin to load."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([*LIBRARIES])
    forkserver.ensure_running()


def start(words: Sequence[object], log: Path, processes: int = 1, **environment: str) -> list[Program]:
    """Start a program in one process, or in several that know of each other as torch.distributed.run has it."""
    everything = {**os.environ, **environment}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        everything |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        everything |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {} for rank in range(processes)]
    return [Program([*map(str, words)], log, everything | own) for own in ranks]


def _run(words: Sequence[str], log: str, environment: Mapping[str, str], folder: str) -> None:
    """Become the program."""
    gc.freeze()  # or lmms-eval looks through all that is loaded, several times a row, for what it could let go of
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream, place in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(stream, place)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    kind, *rest = words
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*words]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    _run(*globals()[PROGRAM])
