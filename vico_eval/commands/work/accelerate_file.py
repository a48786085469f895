"""The machines in accelerate's own configuration: their number, this machine's rank, and where they meet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from vico_eval.errors import ConfigError
from vico_eval.yaml_files import read_yaml

UNCONNECTED = ("NO", "MULTI_CPU")
"""Distribution types with which accelerate starts one isolated process per machine."""

AGREED = "c10d"
"""The rendezvous backend with which machines agree on their ranks."""

MAKE_IT = "Make one with: accelerate config --config_file FILE."


class AccelerateFile(BaseModel):
    """The keys of `accelerate config --config_file FILE` that are used here; accelerate handles the others."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    distributed_type: str = "NO"
    num_machines: int = Field(default=1, ge=1)
    num_processes: int = Field(default=1, ge=1)
    machine_rank: int = Field(default=0, ge=0)
    main_process_ip: str | None = None
    main_process_port: int | None = None
    rdzv_backend: str = "static"
    same_network: bool = False
    mpirun_config: dict[str, Any] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Options of accelerate's launcher for keys that it doesn't read from its configuration."""
        if self.num_machines == 1:
            return ()
        return ("--rdzv_backend", self.rdzv_backend, *(("--same_network",) if self.same_network else ()))

    @property
    def is_of_mpi(self) -> bool:
        """Whether mpirun starts the processes on all machines."""
        return bool((self.mpirun_config or {}).get("mpirun_hostfile"))


@dataclass(frozen=True, slots=True)
class Meeting:
    """Several machines with one command each."""

    rank: int
    """This machine's rank; the command of machine 0 decides what is started."""

    address: str
    """Where they meet, `HOST:PORT`."""


def read_accelerate_file(path: Path) -> AccelerateFile:
    """Read accelerate's configuration.

    Raises:
        ConfigError: it is missing, or machines can't meet with its settings.
    """
    if not path.is_file():
        raise ConfigError(f"--accelerate-config {path} is not a file. {MAKE_IT}")
    found = read_yaml(TypeAdapter(AccelerateFile), path, advice=MAKE_IT)
    if found.num_machines == 1 or found.is_of_mpi:
        return found
    if found.distributed_type in UNCONNECTED:
        raise ConfigError(
            f"{path} has num_machines={found.num_machines} and distributed_type={found.distributed_type}, with which "
            "accelerate starts one isolated process per machine; expected MULTI_GPU, also with --device cpu, or "
            " mpirun_hostfile in mpirun_config."
        )
    if found.main_process_ip is None or found.main_process_port is None:
        raise ConfigError(f"{path} has several machines; expected main_process_ip and main_process_port of machine 0.")
    if found.num_processes % found.num_machines:
        raise ConfigError(
            f"{path} has num_processes={found.num_processes}, which is not a multiple of "
            f"num_machines={found.num_machines}; num_processes is the total over all machines."
        )
    if found.machine_rank >= found.num_machines:
        raise ConfigError(
            f"{path} has machine_rank={found.machine_rank} of num_machines={found.num_machines}; machines are "
            f"numbered from 0 to {found.num_machines - 1}."
        )
    return found


def read_meeting(path: Path, *, has_prefix: bool) -> Meeting | None:
    """Return the machines of a configuration if each needs its own command.

    Args:
        path: the configuration.
        has_prefix: whether commands have a `--launch` prefix. With `c10d`, the prefix starts the same command on all
            machines; otherwise each machine gets its rank from its own file.

    Returns:
        None if one command starts all machines.

    Raises:
        ConfigError: see `read_accelerate_file`.
    """
    found = read_accelerate_file(path)
    if found.num_machines == 1 or found.is_of_mpi or (has_prefix and found.rdzv_backend == AGREED):
        return None
    return Meeting(found.machine_rank, f"{found.main_process_ip}:{found.main_process_port}")
