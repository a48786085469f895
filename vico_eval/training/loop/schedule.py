"""How a phase's weights change: its optimizers and their learning rates; AdamW with a cosine above zero."""

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
    """One for each optimizer; each takes one step a step of training."""


def optimizing(model: nn.Module, settings: OptimizerSettings) -> Optimizing:
    """AdamW and its schedule for what is trained of a model."""
    optimizer = make_optimizer(model.parameters(), settings)
    return Optimizing(settings.steps, settings.clip_norm, [optimizer], [make_scheduler(optimizer, settings)])


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> AdamW:
    """AdamW over those of `parameters` that are trained. Vectors (biases, norms) take no weight decay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, betas=settings.betas)


def make_scheduler(optimizer: torch.optim.Optimizer, settings: OptimizerSettings) -> LRScheduler:
    """Linear warm-up, then a cosine from `learning_rate` to `final_learning_rate`; one step a step of training."""
    return get_cosine_with_min_lr_schedule_with_warmup(  # type: ignore[no-any-return]
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=settings.steps,
        min_lr=settings.final_learning_rate,
    )
