"""Training in several processes of one machine: who am I, and sums over all of them.

On a CPU several processes of one thread are much faster than one process of several threads: the small model's
operations are too short to be shared out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException, spawn

from vico_eval.errors import UserError

_TOLD = "error.rank{}"
TIMEOUT = timedelta(hours=2)


def launch(processes: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(*arguments)` in several connected processes, or here when one is enough.

    Raises:
        UserError: that of a process, in its words.
    """
    if processes == 1:
        work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            spawn(_process, (processes, folder, work, arguments), nprocs=processes)
        except ProcessException:
            # Which carries a traceback; what a user can act on was left as words.
            if told := sorted(Path(folder).glob(_TOLD.format("*"))):
                raise UserError(told[0].read_text(encoding="utf-8")) from None
            raise


def _process(rank: int, processes: int, folder: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    store = Path(folder) / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes, timeout=TIMEOUT)
    try:
        work(*arguments)
    except UserError as error:
        Path(folder, _TOLD.format(rank)).write_text(str(error), encoding="utf-8")
        raise
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """Processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes logs and files."""
    return rank() == 0


def own_parts(num_parts: int) -> range:
    """Which parts of a step's batch are this process's."""
    return range(rank(), num_parts, num_processes())


def wait() -> None:
    """Return once every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its sum over the processes; a missing one counts as zero."""
    if not dist.is_initialized():
        return
    flat = torch.cat([p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter)


def sum_totals(totals: Mapping[str, float]) -> dict[str, float]:
    """Sum of named numbers over the processes."""
    summed: dict[str, float] = {}
    for of_process in gather(dict(totals)):
        for name, total in of_process.items():
            summed[name] = summed.get(name, 0.0) + total
    return summed


def anywhere(flag: bool) -> bool:
    """Whether a flag is set in any process."""
    if not dist.is_initialized():
        return flag
    total = torch.tensor(int(flag))
    dist.all_reduce(total)
    return bool(total)


def gather(value: Any) -> list[Any]:
    """A value of every process, in order."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
