"""A process that loads lmms-eval once and runs each pass in a fork of itself.

Loading lmms-eval takes longer than scoring a row. The process reads a JSON line per pass from stdin (`Order`) and
writes one to stdout when a pass starts and when it ends (`Told`). Running passes continue after stdin is closed.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from vico_eval.schemas import Closed

LOOK_S = 0.1
"""Interval at which ended passes are checked, in seconds."""


class Order(Closed):
    """A pass to run."""

    number: int

    config: Path
    """The pass's file."""

    log: Path
    """The log that its output is appended to."""


class Told(Closed):
    """The state of a pass."""

    number: int

    pid: int | None = None
    """Id of its process and process group, after it has been started."""

    status: int | None = None
    """Its exit status, or a signal as a negative number."""


def main() -> None:
    """Run passes until stdin is closed."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for output of libraries during loading
    from vico_eval.harnesses.lmms_eval import models, run_pass  # noqa: F401 - models is what a pass asks for

    # Unbuffered, because `select` doesn't see data that was read ahead.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as orders:
        numbers: dict[int, int] = {}
        while True:
            if select.select([orders], [], [], LOOK_S)[0]:
                line = orders.readline()
                if not line:
                    return None
                order = Order.model_validate_json(line)
                pid = fork(told, order.number)
                if pid == 0:
                    _set_up(order)
                    return run_pass.main()
                numbers[pid] = order.number
            for pid in list(numbers):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    _tell(told, Told(number=numbers.pop(pid), status=os.waitstatus_to_exitcode(status)))


def fork(told: TextIO, number: int) -> int:
    """Fork this process into its own process group, and report the fork before it does anything.

    If this process is killed before that, the fork ends, because nothing could stop it.

    Returns:
        The fork's pid; 0 in the fork.
    """
    told_of, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        told.close()
        os.close(say)
        if not os.read(told_of, 1):
            os._exit(1)
        os.close(told_of)
        return 0
    os.close(told_of)
    # The exit of a fork that was killed meanwhile is reported later.
    with suppress(ProcessLookupError):
        os.setpgid(pid, pid)
    _tell(told, Told(number=number, pid=pid))
    with suppress(BrokenPipeError):
        os.write(say, b".")
    os.close(say)
    return pid


def _tell(told: TextIO, what: Told) -> None:
    told.write(what.model_dump_json() + "\n")


def _set_up(order: Order) -> None:
    """Redirect this fork's output to the log of a pass, and set its command line."""
    output = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream, place in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(stream, place)
    sys.argv = ["run_pass", "--config", str(order.config)]


if __name__ == "__main__":
    main()
