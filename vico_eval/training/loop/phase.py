"""What a run and a phase of it are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from vico_eval.training.config import OptimizerSettings, RunConfig
from vico_eval.training.data.batches import MicroBatch
from vico_eval.training.data.prepare import TrainingSample
from vico_eval.training.data.skips import SkipCount
from vico_eval.training.data.stream import StepBatch
from vico_eval.training.loop.health import Health
from vico_eval.training.loop.watch import Watch

Batches = Callable[[int], AbstractContextManager[Iterator[StepBatch]]]
"""From a step to the batches of that step and all later ones; leaving it ends the threads that prepare them."""


class Stepper(Protocol):
    """What a stage computes."""

    def losses(self, model: nn.Module, batch: MicroBatch, seeds: tuple[object, ...], health: Health) -> Tensor:
        """[samples]: the loss of each sample of a micro-batch; what else has to be finite is shown to `health`."""

    def held_out(self, model: nn.Module) -> float:
        """The loss on held-out samples, over all processes."""

    def distributions(self) -> dict[str, list[float]]:
        """What else is shown at a checkpoint, by name."""


class Resumable(Protocol):
    """What a checkpoint holds besides weights, optimizer and random states."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, in numbers, texts, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""


@dataclass(frozen=True)
class Phase:
    """A part of a run with an optimizer of its own."""

    name: str
    """Of its folder of checkpoints and its lines of the log."""

    model: nn.Module
    """What is computed in; of its parameters, those that require gradients are trained."""

    optimizer: OptimizerSettings
    stepper: Stepper
    resumables: dict[str, Resumable]
    steps_before: int = 0
    """Of the run's earlier phases: trackers take numbers of a later step only."""


@dataclass(frozen=True)
class Run:
    """What all phases of a run share."""

    accelerator: Accelerator
    config: RunConfig
    batches: Batches
    blank: TrainingSample
    """Stands in for a sample that was skipped."""

    skips: SkipCount
    watch: Watch
    inputs: list[dict[str, Any]]
    """What the run reads, as its checkpoints note it."""
