"""Optimizers and learning-rate schedules of a phase: AdamW with warm-up and cosine decay to a minimum rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup

from vico_eval.training.config import OptimizerSettings


@dataclass(frozen=True)
class Optimizing:
    """The optimizers of a phase."""

    steps: int
    clip_norm: float
    optimizers: Sequence[torch.optim.Optimizer]
    schedulers: Sequence[LRScheduler]
    """One for each optimizer; each advances once per training step."""


def optimizing(model: nn.Module, settings: OptimizerSettings) -> Optimizing:
    """Create AdamW and its schedule for a model's trained parameters."""
    optimizer = make_optimizer(model.parameters(), settings)
    return Optimizing(settings.steps, settings.clip_norm, [optimizer], [make_scheduler(optimizer, settings)])


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> AdamW:
    """Create AdamW over the trained parameters. Vectors (biases, norms) get no weight decay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, betas=settings.betas)


def make_scheduler(optimizer: torch.optim.Optimizer, settings: OptimizerSettings) -> LRScheduler:
    """Create a schedule of linear warm-up and a cosine from `learning_rate` to `final_learning_rate`, advanced once per
    training step."""
    return get_cosine_with_min_lr_schedule_with_warmup(  # type: ignore[no-any-return]
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=settings.steps,
        min_lr=settings.final_learning_rate,
    )
