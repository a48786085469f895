"""One training loop for every stage: AdamW, clipped gradients, a schedule in steps, a log, and resuming.

Random draws inside a step (dropout, routing) are seeded by seed, stage, step and part, so a resumed stage continues as
if it had never stopped, and no random state has to be saved.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vico_eval.errors import CheckpointError
from vico_eval.training.muon import Muon
from vico_eval.training.processes import is_first, sum_gradients, sum_totals
from vico_eval.training.recipe import Schedule

CLIP_NORM = 1.0
BETAS = (0.9, 0.98)
LOG_EVERY = 20

T = TypeVar("T")
console = Console(stderr=True)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a first step."""

    name: str
    module: nn.Module
    learning_rate_share: float = 1.0
    from_step: int = 0
    """Before this step the group's gradients are not computed."""


def write_log(folder: Path, entry: Mapping[str, Any]) -> None:
    """Append one line to the run's log, from the first process only."""
    if is_first():
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")


def say(message: str) -> None:
    """Show progress, from the first process only."""
    if is_first():
        console.print(message, highlight=False)


def learning_rate(schedule: Schedule, step: int) -> float:
    """Learning rate of a step: linear warm-up, then cosine to `final_share` of the peak."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    share = schedule.final_share + (1 - schedule.final_share) * 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.learning_rate * share


def fit(
    stage: str,
    schedule: Schedule,
    groups: Sequence[ParameterGroup],
    parts: Callable[[int], Iterable[Sequence[tuple[int, T]]]],
    loss: Callable[[int, T], Mapping[str, Tensor]],
    *,
    seed: int,
    folder: Path,
    resume: bool,
) -> None:
    """Train the groups' modules in place; every process of a run calls this alike.

    A step's batch has `schedule.num_parts` parts, each on one process; gradients are averaged over the parts. How many
    processes there are changes only the order in which floats are added.

    Args:
        stage: name of the stage, in the log and in the names of its files.
        schedule: steps, parts a step and learning rate.
        groups: what is trained; anything else has to be frozen by the caller.
        parts: from a first step to this process's numbered parts of that step and all later ones.
        loss: the losses of one part; `loss` is what is minimised, the others are logged.
        seed: of the random draws inside a step.
        folder: where `log.jsonl` and the resumable checkpoint go.
        resume: continue from the stage's checkpoint where there is one.

    Raises:
        CheckpointError: the checkpoint to resume from is of other modules.
    """
    parameters = {
        f"{group.name}.{name}": parameter for group in groups for name, parameter in group.module.named_parameters()
    }
    optimizers = build_optimizers(groups, schedule)
    checkpoint = folder / f"{stage}.resume.safetensors"
    start = _restore(checkpoint, parameters, optimizers) if resume and checkpoint.exists() else 0
    began = time.monotonic()
    totals: dict[str, float] = {}
    unlogged = 0
    end = schedule.steps
    for step, own in zip(range(start, end), parts(start), strict=True):
        for group in groups:
            group.module.requires_grad_(step >= group.from_step)
        for optimizer in optimizers:
            for settings in optimizer.param_groups:
                settings["lr"] = learning_rate(schedule, step) * settings["share"]
        for index, part in own:
            torch.manual_seed(zlib.crc32(f"{seed}/{stage}/{step}/{index}".encode()))
            losses = loss(step, part)
            (losses["loss"] / schedule.num_parts).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.item() / schedule.num_parts
        sum_gradients([parameter for parameter in parameters.values() if parameter.requires_grad])
        nn.utils.clip_grad_norm_(list(parameters.values()), CLIP_NORM)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done = step + 1
        unlogged += 1
        if done % LOG_EVERY == 0 or done == end:
            means = {name: round(total / unlogged, 5) for name, total in sum_totals(totals).items()}
            totals.clear()
            unlogged = 0
            seconds = time.monotonic() - began
            write_log(folder, {"stage": stage, "step": done, **means, "seconds": round(seconds, 1)})
            left = seconds / (done - start) * (end - done)
            shown = "  ".join(f"{name} {mean:.4f}" for name, mean in means.items())
            say(f"{stage} {done}/{end}  {shown}  {left / 60:.1f} min left")
        if done % schedule.save_every == 0 and done < end and is_first():
            _save(checkpoint, parameters, optimizers, done)


def build_optimizers(groups: Sequence[ParameterGroup], schedule: Schedule) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices inside decoder layers where the schedule says so."""
    adamw, muon = [], []
    for group in groups:
        inner: list[nn.Parameter] = []
        other: list[nn.Parameter] = []
        for name, parameter in group.module.named_parameters():
            is_inner = schedule.optimizer == "muon" and parameter.ndim == 2 and ".layers." in name
            (inner if is_inner else other).append(parameter)
        adamw.append({"params": other, "share": group.learning_rate_share})
        if inner:
            muon.append({"params": inner, "share": group.learning_rate_share})
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, betas=BETAS, weight_decay=schedule.weight_decay)
    ]
    if muon:
        optimizers.append(Muon(muon, weight_decay=schedule.weight_decay))
    return optimizers


def _save(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer], step: int
) -> None:
    tensors = {f"weight/{name}": parameter.detach().clone() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value.clone()
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step)})
    partial.replace(path)  # a kill while writing leaves the previous checkpoint


def _restore(path: Path, parameters: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]) -> int:
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}
        step = int(file.metadata()["step"])
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
    return step
