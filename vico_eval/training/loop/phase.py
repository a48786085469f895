"""A training phase (model, batches and optimizers), and the settings that all phases of a training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from accelerate import Accelerator
from torch import Tensor, nn

from vico_eval.training.config import Saving
from vico_eval.training.loop.health import Health, Named
from vico_eval.training.loop.schedule import Optimizing
from vico_eval.training.loop.watch import Watch
from vico_eval.training.saving.checkpoints import Checkpoints


class MicroBatch(Named, Protocol):
    """Samples computed together."""

    def to(self: Own, device: Any) -> Own:
        """Return the micro-batch with its model inputs on `device`."""


Own = TypeVar("Own", bound=MicroBatch)
Batch = TypeVar("Batch", bound=MicroBatch)
Computed = TypeVar("Computed", bound=MicroBatch, contravariant=True)


@dataclass(frozen=True, eq=False)
class Step(Generic[Batch]):
    """The share of one optimizer step that one process computes."""

    number: int

    micro_batches: Sequence[Batch]
    """The same number on every process: of W processes, process r has the step's micro-batches r, r + W, ..."""


Batches = Callable[[int], AbstractContextManager[Iterator[Step[Batch]]]]
"""Given a first step, iterates over it and all later steps; leaving the context ends the threads or processes that
prepare them."""


class Stepper(Protocol[Computed]):
    """The losses and measurements of a phase."""

    def losses(self, model: nn.Module, batch: Computed, seeds: tuple[object, ...], health: Health) -> Tensor:
        """Return the loss of each sample, [samples]; record other values that must be finite with `health`."""

    def held_out(self, model: nn.Module) -> float | None:
        """Return the loss on held-out samples over all processes; None if no samples are held out."""

    def distributions(self) -> dict[str, list[float]]:
        """Return further distributions to show at a checkpoint, by name."""


class Resumable(Protocol):
    """State that a checkpoint holds besides weights, optimizer and random states."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers, strings, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""


def _check_nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Phase(Generic[Batch]):
    """A part of a training with its own optimizers."""

    name: str
    """The name of its checkpoint folder and in its log lines."""

    model: nn.Module
    """The model; its parameters that require gradients are trained."""

    stepper: Stepper[Batch]
    batches: Batches[Batch]
    optimizing: Optimizing
    resumables: Mapping[str, Resumable] = field(default_factory=dict)
    check: Callable[[], None] = _check_nothing
    """Called after every checkpoint; may raise to end the training."""

    steps_before: int = 0
    """Steps of the training's earlier phases. Trackers require step numbers that increase."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The settings that all phases of a training share."""

    accelerator: Accelerator
    watch: Watch
    out: Path
    """The output folder; checkpoints are in its `checkpoints/<phase>`."""

    seed: int
    saving: Saving
    identity: dict[str, Any]
    """The settings that a checkpoint must match."""

    inputs: list[dict[str, Any]] | None = None
    """The training's inputs as its checkpoints record them. None skips the comparison."""

    to_go_on: str = "Repeat the command to resume."
    """Advice for a user whose training was stopped."""

    def checkpoints(self, phase: str) -> Checkpoints:
        """Return a phase's checkpoints; those of another configuration or other data raise when they are opened."""
        return Checkpoints(self.out / "checkpoints" / phase, self.saving, self.identity, self.inputs)
