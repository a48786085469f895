"""What the loop trains: a phase with its model, its batches and its optimizers; and what phases of a training share."""

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
    """Samples that are computed together."""

    def to(self: Own, device: Any) -> Own:
        """The same with what is computed in on `device`."""


Own = TypeVar("Own", bound=MicroBatch)
Batch = TypeVar("Batch", bound=MicroBatch)
Computed = TypeVar("Computed", bound=MicroBatch, contravariant=True)


@dataclass(frozen=True, eq=False)
class Step(Generic[Batch]):
    """What one process computes in one step of the optimizer."""

    number: int

    micro_batches: Sequence[Batch]
    """Equally many on every process: of W processes, process r has those numbered r, r + W, ..."""


Batches = Callable[[int], AbstractContextManager[Iterator[Step[Batch]]]]
"""From a step to that step and all later ones; leaving it ends the threads or processes that prepare them."""


class Stepper(Protocol[Computed]):
    """What a phase computes."""

    def losses(self, model: nn.Module, batch: Computed, seeds: tuple[object, ...], health: Health) -> Tensor:
        """[samples]: the loss of each sample of a micro-batch; what else has to be finite is shown to `health`."""

    def held_out(self, model: nn.Module) -> float | None:
        """The loss on held-out samples, over all processes; None where none are held out."""

    def distributions(self) -> dict[str, list[float]]:
        """What else is shown at a checkpoint, by name."""


class Resumable(Protocol):
    """What a checkpoint holds besides weights, optimizer and random states."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, in numbers, texts, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""


def _check_nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Phase(Generic[Batch]):
    """A part of a training with optimizers of its own."""

    name: str
    """Of its folder of checkpoints and its lines of the log."""

    model: nn.Module
    """What is computed in; of its parameters, those that require gradients are trained."""

    stepper: Stepper[Batch]
    batches: Batches[Batch]
    optimizing: Optimizing
    resumables: Mapping[str, Resumable] = field(default_factory=dict)
    check: Callable[[], None] = _check_nothing
    """Called behind every checkpoint; may end the training."""

    steps_before: int = 0
    """Of the training's earlier phases: trackers take numbers of a later step only."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all phases of a training share."""

    accelerator: Accelerator
    watch: Watch
    out: Path
    """Its checkpoints lie in `checkpoints/<phase>`."""

    seed: int
    saving: Saving
    identity: dict[str, Any]
    """What a checkpoint has to agree in."""

    inputs: list[dict[str, Any]] | None = None
    """What the training reads, as its checkpoints note it; None compares nothing."""

    to_go_on: str = "Repeat the command to go on."
    """What a user is told whose training was stopped."""

    def checkpoints(self, phase: str) -> Checkpoints:
        """Those of a phase; of another configuration or data they are refused when looked at."""
        return Checkpoints(self.out / "checkpoints" / phase, self.saving, self.identity, self.inputs)
