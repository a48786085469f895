"""How a trained model performs on samples that were held out from training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vico_eval.training.data.batches import MicroBatch, fixed_share
from vico_eval.training.loop.health import Health

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The shares of low tiles in the report."""

Batches = Callable[[], Iterator[MicroBatch]]
"""Iterates over this process's held-out micro-batches from the first one. Every process has the same number."""


class AtShare(NamedTuple):
    """How close a model's answers are to the reference's, with a given share of every sample's tiles low."""

    share: float
    kl: float
    """In nats: the mean over a sample's answer tokens, then over samples."""

    agreement: float
    """Share of answer tokens for which reference and policy rank the same token first."""

    samples: int


class HeldOut:
    """Held-out samples, shared among the processes."""

    def __init__(self, accelerator: Accelerator, batches: Batches) -> None:
        self._accelerator = accelerator
        self.batches = batches

    def kl(self, model: nn.Module) -> float:
        """Return the KL with half of every sample's tiles low, in nats."""
        (result,) = self._measure(model, (0.5,))
        return result.kl

    def report(self, model: nn.Module) -> list[AtShare]:
        """Return KL and agreement at each of `SHARES`."""
        return self._measure(model, SHARES)

    @torch.no_grad()
    def _measure(self, model: nn.Module, shares: tuple[float, ...]) -> list[AtShare]:
        sums = torch.zeros(len(shares), 2, device=self._accelerator.device)
        samples = 0
        health = Health(self._accelerator.device)
        for batch in self.batches():
            routings = [fixed_share(batch, share, ("held-out",)) for share in shares]
            result = model(batch.to(self._accelerator.device), routings)
            health.samples(batch, "loss", result.kl.sum(dim=0))
            counts = batch.counts_in_loss.to(sums.device)
            sums += torch.stack([result.kl[:, counts].sum(dim=1), result.agreement[:, counts].sum(dim=1)], dim=1)
            samples += int(counts.sum())
        self.check(health)
        sums = self.total(sums)
        samples = int(self.total(torch.tensor(samples, device=sums.device)))
        means = (sums / samples).tolist()  # NaN where every sample was skipped
        return [AtShare(share, kl, agreement, samples) for share, (kl, agreement) in zip(shares, means, strict=True)]

    def check(self, health: Health) -> None:
        """Raise NotFinite if any process found a number that is not finite on a held-out sample."""
        if bool(self.total(health.is_ill())):
            health.stop("On held-out samples", "the previous checkpoint is kept.")

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        summed: Tensor = self._accelerator.reduce(values, reduction="sum")
        return summed

    def together(self, values: Tensor) -> Tensor:
        """Concatenate the values of all processes, of which each has the same number."""
        gathered: Tensor = self._accelerator.gather(values.to(self._accelerator.device))
        return gathered.cpu()


def as_dict(report: list[AtShare]) -> list[dict[str, Any]]:
    """Convert a report to the plain values that are written to disk."""
    return [one._asdict() for one in report]
