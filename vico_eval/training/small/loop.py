"""One training loop for every stage: AdamW, clipped gradients, a schedule in steps, a log, and resuming.

Random draws inside a step (dropout, routing) are seeded by seed, stage, step and part, so a resumed stage continues as
if it had never stopped, and no random state has to be saved.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vico_eval.terminal import SafeConsole
from vico_eval.training.loop.finite import ADVICE, NotFinite, as_json, named, odd_weights
from vico_eval.training.small.muon import Muon
from vico_eval.training.small.processes import anywhere, gather, is_first, sum_gradients, sum_totals
from vico_eval.training.small.recipe import Schedule
from vico_eval.training.small.resume import restore, save

CLIP_NORM = 1.0
BETAS = (0.9, 0.98)
LOG_EVERY = 20

T = TypeVar("T")
console = SafeConsole(stderr=True)


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
            log.write(as_json(entry) + "\n")


def say(message: str) -> None:
    """Show progress, from the first process only."""
    if is_first():
        console.print(message)


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
        CheckpointError: the checkpoint to resume from is of other modules, or it and the one before it are torn.
        NotFinite: a loss, a gradient or a weight is no number; the last checkpoint is of before.
    """
    parameters = {
        f"{group.name}.{name}": parameter for group in groups for name, parameter in group.module.named_parameters()
    }
    optimizers = build_optimizers(groups, schedule)
    checkpoint = folder / f"{stage}.resume.safetensors"
    start = restore(checkpoint, parameters, optimizers) if resume else 0
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
        odd = []
        for index, part in own:
            torch.manual_seed(zlib.crc32(f"{seed}/{stage}/{step}/{index}".encode()))
            losses = loss(step, part)
            (losses["loss"] / schedule.num_parts).backward()
            if not bool(losses["loss"].isfinite()):
                odd.append(f"the loss of part {index}")
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.item() / schedule.num_parts
        sum_gradients([parameter for parameter in parameters.values() if parameter.requires_grad])
        norm = nn.utils.clip_grad_norm_(list(parameters.values()), CLIP_NORM)
        if not bool(norm.isfinite()):
            odd.append(f"the gradient of parts {', '.join(str(index) for index, _ in own)}")
        _stop_if_any(odd, f"In step {step} of {stage}")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % schedule.save_every == 0 or done == end:
            _stop_if_any(
                [f"the weight {name}" for name in odd_weights(parameters.items())], f"Behind step {step} of {stage}"
            )
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
            save(checkpoint, parameters, optimizers, done)


def _stop_if_any(odd: Sequence[str], where: str) -> None:
    """End the run in every process where one of them saw a number that is none, before it is used."""
    if anywhere(bool(odd)):
        everyone = sorted({one for of_process in gather(list(odd)) for one in of_process})
        raise NotFinite(
            f"{where}: {named(everyone)} is not finite. It was not saved; earlier checkpoints stay. {ADVICE}"
        )


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
