"""Assignment of this machine's GPUs to commands that run at the same time."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vico_eval.commands.work.launcher import Launching
from vico_eval.commands.work.processes import Process
from vico_eval.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's own variable: the GPUs that a process may use, by number or id."""


def split_visible(text: str) -> list[str]:
    """Return the GPUs in a value of that variable; like CUDA, ignore those after a -1."""
    names = [name.strip() for name in text.split(",")]
    if "-1" in names:
        names = names[: names.index("-1")]
    return [name for name in names if name]


def visible_gpus() -> list[str]:
    """Return the GPUs that this command may use.

    Raises:
        ConfigError: a GPU is named twice.
    """
    given = os.environ.get(VISIBLE)
    if given is None:
        import torch

        return [str(number) for number in range(torch.cuda.device_count())]
    names = split_visible(given)
    if len(set(names)) < len(names):
        raise ConfigError(f"{VISIBLE} is {given}, which names a GPU twice; expected each once.")
    return names


def own_gpus(visible: Sequence[str] | None, place: int, number: int) -> list[str]:
    """Return the GPUs of one of several processes on a machine.

    Args:
        visible: the GPUs that all of them see; None for all of the machine.
        place: index of the process, from 0.
        number: number of GPUs per process.
    """
    wanted = range(place * number, (place + 1) * number)
    if visible is None:
        return [str(one) for one in wanted]
    return [visible[one] for one in wanted if one < len(visible)]


def divide(launching: Launching, device: str, jobs: int) -> list[tuple[str, ...]]:
    """Return the GPUs of each command that runs at the same time; empty if they need no assignment.

    Args:
        launching: how each command is started.
        device: the models' device.
        jobs: number of commands at once.

    Raises:
        ConfigError: fewer GPUs are visible than are needed, or `device` names one of them.
    """
    if not device.startswith("cuda") or launching.accelerate_config is not None:
        return []
    if device != "cuda":
        if jobs > 1 or launching.processes > 1:
            raise ConfigError(
                f"--device {device} names one GPU, on which several processes would run at once. Give --device cuda, "
                f"and choose among the GPUs with {VISIBLE}."
            )
        return []
    if jobs == 1 and launching.gpus == 1:
        return []
    visible = visible_gpus()
    if launching.prefix and not visible:
        return []  # the prefix chooses the machine and its GPUs
    each = launching.gpus
    if len(visible) < jobs * each:
        instead = f" If --launch assigns the GPUs, hide those here: {VISIBLE}=''." if launching.prefix else ""
        raise ConfigError(
            f"{jobs} command(s) at once with {each} GPU(s) each need {jobs * each}, and {len(visible)} are visible "
            f"here ({', '.join(visible) or 'none'}). Lower --jobs, --processes or --gpus-per-process.{instead}"
        )
    # With other machines, each has GPUs of its own.
    return [tuple(visible[job * each : (job + 1) * each]) for job in range(jobs)] if jobs > 1 else []


class GpuShares:
    """The GPUs of each running command. A share is free again after its process has ended."""

    def __init__(self, shares: Sequence[Sequence[str]]) -> None:
        self._shares = [",".join(share) for share in shares]
        self._users: dict[str, Process] = {}

    def free(self) -> str | None:
        """Return a value of the variable that no running process has; None if GPUs aren't divided.

        Raises:
            RuntimeError: all are taken, because more commands run at once than planned.
        """
        if not self._shares:
            return None
        for share in self._shares:
            user = self._users.get(share)
            if user is None or user.poll() is not None:
                return share
        raise RuntimeError(f"all {len(self._shares)} shares of GPUs are taken")

    def take(self, share: str, process: Process) -> None:
        """Assign a share to a process."""
        self._users[share] = process
