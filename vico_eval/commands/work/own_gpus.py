"""Runs a module with its own GPUs: `python -m vico_eval.commands.work.own_gpus NUMBER MODULE ARGUMENTS...`.

A launcher starts several such processes on a machine and sets each one's index (LOCAL_RANK). Process 0 sees the first
NUMBER of the visible GPUs, process 1 the next ones, and so on.
"""

from __future__ import annotations

import os
import runpy
import sys

from vico_eval.commands.work.gpus import VISIBLE, own_gpus, split_visible


def main() -> None:
    """Set the visible devices, before torch is imported, and run the module in this process.

    Raises:
        SystemExit: too few GPUs are visible.
    """
    number, module = int(sys.argv[1]), sys.argv[2]
    place = int(os.environ.get("LOCAL_RANK", "0"))
    given = os.environ.get(VISIBLE)
    own = own_gpus(None if given is None else split_visible(given), place, number)
    if len(own) < number:
        sys.exit(f"process {place} of this machine is to have {number} GPUs of {VISIBLE}={given}, which has too few.")
    os.environ[VISIBLE] = ",".join(own)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
