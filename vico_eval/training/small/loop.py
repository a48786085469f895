"""Running the small models' stages as phases of the training loop that ViCO's stages use.

A step's batch has several parts, each computed by one process, and gradients are averaged over the parts. The number of
processes changes only the order of float additions.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from vico_eval.errors import ConfigError
from vico_eval.training.config import Saving
from vico_eval.training.loop.accelerated import on_main
from vico_eval.training.loop.health import Health
from vico_eval.training.loop.phase import Phase, Step, Training
from vico_eval.training.loop.schedule import Optimizing
from vico_eval.training.loop.steps import run_phase
from vico_eval.training.loop.watch import Watch
from vico_eval.training.saving.files import held
from vico_eval.training.small.data.parts import steps
from vico_eval.training.small.muon import Muon
from vico_eval.training.small.recipe import Schedule

CLIP_NORM = 1.0
BETAS = (0.9, 0.98)
LOSSES = ("loss", "answer", "align", "accuracy")
"""The values that stages report."""

LONGEST_WAIT = timedelta(hours=2)
"""How long processes wait for the first one, which evaluates alone."""

T = TypeVar("T")
Loss = Callable[[int, T], Mapping[str, Tensor]]
"""Maps a step and a part's content to its losses: `loss` is minimised, the others are only reported."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate. Parameters that a step's loss does not reach are not updated."""

    name: str
    module: nn.Module
    learning_rate_share: float = 1.0


@contextmanager
def opened(out: Path) -> Iterator[Accelerator]:
    """Set up a training's processes, on the CPU with one thread each, and lock its folder until the context is left.

    On a CPU several single-threaded processes are much faster than one process with several threads, because the small
    models' operations are too short to parallelise.

    Raises:
        OutputError: another training is writing into `out`.
    """
    torch.set_num_threads(1)
    accelerator = Accelerator(
        cpu=True,
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
        kwargs_handlers=[
            # A stage may leave a group out of its loss in the first steps.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=LONGEST_WAIT),
        ],
    )
    with ExitStack() as stack:
        on_main(accelerator, lambda: stack.enter_context(held(out)))
        yield accelerator


def training_in(folder: Path, accelerator: Accelerator, seed: int, identity: dict[str, Any]) -> Training:
    """Create a training whose log and checkpoints go into `folder`.

    Args:
        identity: the settings that a checkpoint must match, besides those of its stage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return Training(
        accelerator=accelerator,
        watch=Watch(accelerator, folder),
        out=folder,
        seed=seed,
        saving=Saving(keep_best=0),
        identity=identity,
        to_go_on="Repeat the command with --resume to resume.",
    )


def own_parts(accelerator: Accelerator, num_parts: int) -> range:
    """Return the numbers of the parts that this process computes."""
    return range(accelerator.process_index, num_parts, accelerator.num_processes)


def fit(
    training: Training,
    stage: str,
    settings: Schedule,
    groups: Sequence[ParameterGroup],
    make: Callable[[int], list[tuple[int, T]]],
    loss: Loss[T],
    *,
    resume: bool,
) -> None:
    """Train the groups' modules in place; every process of a training makes the same call.

    Args:
        training: from `training_in`.
        stage: the stage's name in the log and for its checkpoints.
        settings: steps, parts per step and learning rate.
        groups: the parameters to train; the caller must freeze all others.
        make: maps a step to this process's numbered parts of it.
        loss: the loss of one part.
        resume: resume from the stage's last checkpoint, if there is one.

    Raises:
        ConfigError: the parts can't be divided evenly among the processes.
        The errors of `run_phase`.
    """
    accelerator = training.accelerator
    if settings.num_parts % accelerator.num_processes:
        raise ConfigError(
            f"num_parts of {stage} is {settings.num_parts}; expected a multiple of the {accelerator.num_processes} "
            "processes."
        )
    training = replace(
        training,
        saving=Saving(every=settings.save_every, keep_best=0),
        identity=training.identity | {stage: settings.model_dump(mode="json", exclude={"save_every"})},
    )
    if not resume and accelerator.is_main_process:
        shutil.rmtree(training.checkpoints(stage).folder, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.gradient_accumulation_steps = settings.num_parts // accelerator.num_processes
    for group in groups:
        group.module.requires_grad_(True)
    training.watch.declare(*LOSSES)
    phase: Phase[_Part[T]] = Phase(
        name=stage,
        model=_Trainee(groups, loss),
        stepper=_LossStepper(training.watch),
        batches=partial(_batches, make, settings.steps),
        optimizing=optimizing(groups, settings),
    )
    run_phase(training, phase)


@dataclass(frozen=True, eq=False)
class _Part(Generic[T]):
    """A part of a step's batch. The loop treats it as one sample, because it has one loss."""

    step: int
    number: int
    content: T

    @property
    def keys(self) -> list[str]:
        return [f"part {self.number}"]

    @property
    def counts_in_loss(self) -> Tensor:
        return torch.tensor([True])

    def to(self, device: Any) -> _Part[T]:
        return self  # small models are trained on the CPU


class _Trainee(nn.Module, Generic[T]):
    """The module that DDP wraps: the groups, with the stage's loss as their forward pass."""

    def __init__(self, groups: Sequence[ParameterGroup], loss: Loss[T]) -> None:
        super().__init__()
        self.groups = nn.ModuleDict({group.name: group.module for group in groups})
        self._loss = loss

    def forward(self, step: int, content: T) -> Mapping[str, Tensor]:
        return self._loss(step, content)


class _LossStepper(Generic[T]):
    """Reports every loss of a part; no samples are held out."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def losses(self, model: nn.Module, batch: _Part[T], seeds: tuple[object, ...], health: Health) -> Tensor:
        found: Mapping[str, Tensor] = model(batch.step, batch.content)
        for name, value in found.items():
            self._watch.add(name, value.item())
        return found["loss"][None]

    def held_out(self, model: nn.Module) -> None:
        return None

    def distributions(self) -> dict[str, list[float]]:
        return {}


@contextmanager
def _batches(make: Callable[[int], list[tuple[int, T]]], last: int, first: int) -> Iterator[Iterator[Step[_Part[T]]]]:
    yield (
        Step(step, [_Part(step, number, content) for number, content in parts])
        for step, parts in zip(range(first, last), steps(make, first, last), strict=True)
    )


def learning_rate_share(settings: Schedule, step: int) -> float:
    """Return a step's learning rate as a share of the peak: linear warm-up, then a cosine down to `final_share`."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.final_share + (1 - settings.final_share) * 0.5 * (1 + math.cos(math.pi * progress))


def optimizing(groups: Sequence[ParameterGroup], settings: Schedule) -> Optimizing:
    """Create AdamW, and Muon for the matrices inside decoder layers if the settings ask for it."""
    adamw, muon = [], []
    for group in groups:
        inner: list[nn.Parameter] = []
        other: list[nn.Parameter] = []
        for name, parameter in group.module.named_parameters():
            is_inner = settings.optimizer == "muon" and parameter.ndim == 2 and ".layers." in name
            (inner if is_inner else other).append(parameter)
        peak = settings.learning_rate * group.learning_rate_share
        adamw.append({"params": other, "lr": peak})
        if inner:
            muon.append({"params": inner, "lr": peak})
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, betas=BETAS, weight_decay=settings.weight_decay)
    ]
    if muon:
        optimizers.append(Muon(muon, weight_decay=settings.weight_decay))
    schedulers = [LambdaLR(one, partial(learning_rate_share, settings)) for one in optimizers]
    return Optimizing(settings.steps, CLIP_NORM, optimizers, schedulers)
