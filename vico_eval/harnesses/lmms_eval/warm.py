"""A process that has loaded lmms-eval once and runs each pass in a copy of itself.

To load lmms-eval takes longer than to score a row. On stdin comes a line of JSON for each pass (`Order`); on stdout
goes one when a pass has been started and one when it has ended (`Told`). Passes that run go on when stdin is closed.
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
"""How often ended passes are looked for."""


class Order(Closed):
    """A pass to run."""

    number: int

    config: Path
    """Its file."""

    log: Path
    """Its output is added to it."""


class Told(Closed):
    """What became of one."""

    number: int

    pid: int | None = None
    """Of its process and process group, once it has been started."""

    status: int | None = None
    """How it has ended: an exit status, or a signal as a negative number."""


def main() -> None:
    """Run passes until there are no more orders."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for what libraries print while they are loaded
    from vico_eval.harnesses.lmms_eval import models, run_pass  # noqa: F401 - models is what a pass asks for

    # Unbuffered: what has been read ahead would not be seen by `select`.
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
    """Make a copy of this process, in a process group of its own, and tell of it before it does anything.

    Where this process is killed before that, the copy ends: nobody could stop it.

    Returns:
        The pid of the copy; 0 in the copy.
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
    # A copy that somebody has killed meanwhile has an end, which is told later.
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
    """Have this copy write to the log of a pass, and give it its command line."""
    output = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream, place in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(stream, place)
    sys.argv = ["run_pass", "--config", str(order.config)]


if __name__ == "__main__":
    main()
