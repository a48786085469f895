"""The launcher of a row or pass: its number of processes, machines, and GPUs per process."""

from __future__ import annotations

import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from vico_eval.commands.work.accelerate_file import Meeting, read_accelerate_file, read_meeting
from vico_eval.errors import ConfigError

OWN_GPUS = "vico_eval.commands.work.own_gpus"
"""Gives a process its own GPUs and runs a module there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launching:
    """How the processes of a row or pass are started. It doesn't change answers."""

    processes: int = 1
    """Number of processes that share the documents, over all machines."""

    gpus_per_process: int | None = None
    """Number of GPUs that a model is distributed over; None for one GPU."""

    machines: int = 1
    """Number of machines that the processes are distributed over."""

    accelerate_config: Path | None = None
    """Accelerate's own configuration, in place of `machines`. With several machines, each may have its own file."""

    prefix: tuple[str, ...] = ()
    """Prefix of each command."""

    @property
    def is_spread(self) -> bool:
        """Whether a row's processes may be on several machines."""
        return self.machines > 1 or self.accelerate_config is not None

    @property
    def meeting(self) -> Meeting | None:
        """The machines that have their own commands; None if this command starts all processes."""
        if self.accelerate_config is None:
            return None
        return read_meeting(self.accelerate_config, has_prefix=bool(self.prefix))

    @property
    def processes_here(self) -> int:
        """Number of a row's processes on a machine."""
        if self.accelerate_config is None:
            return self.processes // self.machines
        found = read_accelerate_file(self.accelerate_config)
        return max(1, (self.processes if self.processes > 1 else found.num_processes) // found.num_machines)

    @property
    def gpus(self) -> int:
        """Number of GPUs that a command needs on a machine, as far as it is known."""
        return self.processes // self.machines * (self.gpus_per_process or 1)

    def check(self, device: str, jobs: int | None) -> None:
        """Check that the options are compatible.

        Raises:
            ConfigError: they aren't.
        """
        if self.gpus_per_process is not None and device != "cuda":
            raise ConfigError(
                f"--gpus-per-process {self.gpus_per_process} spreads a model over GPUs and can't be used with --device "
                f"{device}. Pass --device cuda, or leave out --gpus-per-process."
            )
        self._check_machines()
        if self.is_spread and jobs is not None and jobs > 1:
            name = "--machines" if self.machines > 1 else "--accelerate-config"
            raise ConfigError(
                f"--jobs {jobs} can't be used with {name}: rows that run at once would take the same GPUs. Leave out "
                "--jobs, or start a command for each part of the rows or documents (--rows, --shard)."
            )

    def _check_machines(self) -> None:
        machines, named = self.machines, f"--machines {self.machines}"
        if self.accelerate_config is not None:
            if self.machines > 1:
                raise ConfigError("pass either --machines or --accelerate-config, whose file lists the machines.")
            machines = read_accelerate_file(self.accelerate_config).num_machines
            named = f"the {machines} machines of {self.accelerate_config}"
        # One process is the default, so the configuration decides on the number.
        if self.processes % machines and (self.processes > 1 or self.accelerate_config is None):
            raise ConfigError(
                f"--processes {self.processes} can't be divided evenly among {named}; --processes is the total over "
                "all machines."
            )
        if self.machines > 1 and not self.prefix:
            raise ConfigError(
                f"--machines {self.machines} needs --launch with what starts a command on each of them, such as "
                f"--launch 'srun --nodes={self.machines} --ntasks-per-node=1'; one alone would wait for the others."
            )

    def words(self, device: str) -> tuple[str, ...]:
        """Return the command up to the name of the module to run.

        Args:
            device: of the models.
        """
        own = () if self.gpus_per_process is None else (OWN_GPUS, str(self.gpus_per_process))
        return (*self.prefix, sys.executable, *self._launcher(device), "-m", *own)

    def _launcher(self, device: str) -> tuple[str, ...]:
        number = str(self.processes)
        if self.accelerate_config is not None:
            more = ("--num_processes", number) if self.processes > 1 else ()
            own = read_accelerate_file(self.accelerate_config).words
            return ("-m", "accelerate.commands.launch", "--config_file", str(self.accelerate_config), *own, *more)
        # On a CPU, accelerate's launcher always starts a single process, seconds later than Python.
        if device == "cpu" and self.processes == 1:
            return ()
        if device == "cpu":
            each = ("--nproc_per_node", str(self.processes // self.machines))
            if self.machines == 1:
                return ("-m", "torch.distributed.run", "--standalone", *each)
            meeting = ("--rdzv_backend", "c10d", "--rdzv_endpoint", ":".join(map(str, _meeting_place())))
            return ("-m", "torch.distributed.run", "--nnodes", str(self.machines), *meeting, *each)
        return (
            *("-m", "accelerate.commands.launch"),
            # Set explicitly, because accelerate otherwise uses every visible GPU and warns about each default.
            *("--num_processes", number, "--num_machines", str(self.machines)),
            *("--mixed_precision", "no", "--dynamo_backend", "no"),
            *(("--multi_gpu",) if self.processes > 1 else ()),
            *(_meeting() if self.machines > 1 else ()),
        )


def split_prefix(text: str) -> tuple[str, ...]:
    """Split `--launch` into arguments.

    Raises:
        ConfigError: a quotation mark is missing.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"--launch {text!r} can't be split into words: {error}.") from error


def _meeting() -> tuple[str, ...]:
    """Return the options with which the launchers of several machines find each other.

    They agree on their ranks (c10d), because each machine gets the same command.
    """
    host, port = _meeting_place()
    return (
        *("--rdzv_backend", "c10d", "--main_process_ip", host, "--main_process_port", str(port)),
        *("--machine_rank", "0"),  # accelerate requires a rank, which c10d ignores
    )


def _meeting_place() -> tuple[str, int]:
    """Return this machine's name and a free port."""
    with socket.socket() as free:
        free.bind(("", 0))
        port: int = free.getsockname()[1]
    return socket.gethostname(), port
