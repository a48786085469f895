"""Where a stage of the small models goes on: its weights and optimizers after a step, in one safetensors file.

The file before it stays too, for a last one that was cut or overwritten with zeros. Each has the digest of its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vico_eval.errors import CheckpointError
from vico_eval.paths import free_path
from vico_eval.terminal import SafeConsole
from vico_eval.training.saving.files import whole_file
from vico_eval.training.small.muon import Muon
from vico_eval.training.small.processes import is_first, wait


def before(path: Path) -> Path:
    """Where the checkpoint lies that was saved before the one at `path`."""
    return path.with_suffix(f".before{path.suffix}")


def save(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer], step: int
) -> None:
    """Leave a checkpoint of `step` at `path`, and what was there beside it."""
    tensors = {f"weight/{name}": parameter.detach().clone() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value.clone()
    with whole_file(path) as unfinished:
        save_file(tensors, unfinished, metadata={"step": str(step), "sha256": _digest(tensors)})
        if path.exists():
            path.replace(before(path))


def restore(path: Path, parameters: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Take back the last checkpoint that is sound; every process calls this alike.

    Returns:
        Its step; 0 where there is none.

    Raises:
        CheckpointError: it is of other modules, or none of those that are there is sound.
    """
    torn: dict[Path, str] = {}
    for candidate in (path, before(path)):
        if not candidate.exists():
            continue
        try:
            stored, step = _read(candidate)
        except (OSError, SafetensorError, ValueError) as error:
            torn[candidate] = str(error)
            continue
        wait()  # the others have to see the torn one too
        _set_aside(torn, step)
        _take(candidate, stored, parameters, optimizers)
        return step
    if torn:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in torn.items())
        raise CheckpointError(f"No checkpoint can be used: {reasons}. Remove them, or train without --resume.")
    return 0


def _read(path: Path) -> tuple[dict[str, Tensor], int]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        stored = {name: file.get_tensor(name) for name in file.keys()}
    if "step" not in metadata:
        raise ValueError("it has no step")
    if metadata.get("sha256", found := _digest(stored)) != found:
        raise ValueError("it has other content than was written")
    if odd := [name for name, value in stored.items() if not bool(value.isfinite().all())]:
        raise ValueError(f"{odd[0]} holds numbers that are none")
    return stored, int(metadata["step"])


def _take(
    path: Path,
    stored: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    weights = {name.removeprefix("weight/") for name in stored if name.startswith("weight/")}
    if weights != set(parameters):
        odd = ", ".join(sorted(weights ^ set(parameters))[:3])
        raise CheckpointError(
            f"{path} belongs to another recipe (differs in {odd}). Delete it, or train without --resume."
        )
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(stored[f"weight/{name}"])
    for optimizer in optimizers:
        keys = ("momentum",) if isinstance(optimizer, Muon) else ("step", "exp_avg", "exp_avg_sq")
        of_optimizer = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in parameters.items():
            state: dict[str, Any] = {key: stored[f"{key}/{name}"] for key in keys if f"{key}/{name}" in stored}
            if state and id(parameter) in of_optimizer:
                optimizer.state[parameter] = state


def _set_aside(torn: Mapping[Path, str], step: int) -> None:
    if not is_first():
        return
    for file, reason in torn.items():
        aside = free_path(file.with_name(f"torn-{file.name}."))
        file.rename(aside)
        SafeConsole(stderr=True).print(
            f"The checkpoint {file} can't be used ({reason}) and was set aside as {aside.name}. The stage goes on from "
            f"step {step}: the steps behind it are done again.",
            markup=False,
            highlight=False,
        )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
