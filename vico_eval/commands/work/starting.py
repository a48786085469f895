"""How a table's processes are started: their environment, and whether lmms-eval is preloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vico_eval.commands.work import passes as of_passes
from vico_eval.commands.work.execute import Launch
from vico_eval.commands.work.gpus import VISIBLE, GpuShares
from vico_eval.commands.work.passes import Pass
from vico_eval.commands.work.plan import PlannedRun
from vico_eval.commands.work.processes import Process, Subprocess
from vico_eval.commands.work.warm import WarmStart

LONE = (sys.executable, "-m")
"""Launcher of a run with a single process on a CPU."""


@contextmanager
def starting(
    passes: Sequence[Pass], environment: Mapping[str, str], gpu_shares: Sequence[Sequence[str]] = ()
) -> Iterator[Launch]:
    """Yield the function that starts commands of the passes' runs.

    If several passes have a single process each, lmms-eval is loaded once for all of them, in the background.

    Args:
        passes: the passes to start.
        environment: environment variables of all processes, in addition to this one's.
        gpu_shares: GPUs of each process that runs beside others; empty if all see the same ones.
    """
    shares = GpuShares(gpu_shares)

    def start(run: PlannedRun, command: Sequence[str], log: Path) -> Process:
        share = shares.free()
        if share is None:
            return Subprocess(command, log, {**environment, **run.environment})
        process = Subprocess(command, log, {**environment, **run.environment, VISIBLE: share})
        shares.take(share, process)
        return process

    first = passes[0].runs[0] if passes else None
    if first is None or len(passes) == 1 or first.launcher != LONE or any(one.is_alone for one in passes):
        yield start
        return
    # They belong to one table, whose runs have the same environment.
    with WarmStart({**environment, **first.environment}) as warm:

        def start_warm(run: PlannedRun, command: Sequence[str], log: Path) -> Process:
            if of_passes.PROGRAM in command and warm.is_alive:
                return warm.start(command, Path(command[-1]), log)
            return start(run, command, log)

        yield start_warm


def num_cores() -> int:
    """Return the number of cores that this process may use, from its affinity and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def environment_of(threads: int, *, is_offline: bool) -> dict[str, str]:
    """Return the environment variables of processes.

    Args:
        threads: number of threads of each.
        is_offline: everything that they read is on this machine.
    """
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, threads)),
        # glibc otherwise returns the memory of each large tensor to the kernel, which zeroes it again.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
    }
    if is_offline:
        # Everything is on this machine; asking the hub could only fail or take time.
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return environment
