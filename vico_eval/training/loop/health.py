"""Whether a step's numbers are finite on all processes, checked without an extra device synchronisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.tensor import DTensor

from vico_eval.training.loop.finite import ADVICE, NotFinite, named


class Named(Protocol):
    """A batch whose samples an error can name."""

    @property
    def keys(self) -> Sequence[str]:
        """[samples], the sample keys."""

    @property
    def counts_in_loss(self) -> Tensor:
        """[samples], bool: False for the placeholder of a skipped sample."""


class Health:
    """The numbers that a process saw in one step or one held-out measurement."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seen: list[tuple[Named, str, Tensor]] = []
        self._norm: Tensor | None = None

    def samples(self, batch: Named, name: str, values: Tensor, expected: Tensor | None = None) -> None:
        """Record one number per sample.

        Args:
            batch: the samples; placeholders of skipped samples don't count.
            name: the number's name in the error.
            values: [samples].
            expected: [samples], bool: samples that must have a finite number; None means all.
        """
        counts = batch.counts_in_loss.to(values.device)
        is_expected = counts if expected is None else counts & expected.to(values.device)
        self._seen.append((batch, name, is_expected & ~values.detach().isfinite()))

    def gradient(self, norm: Tensor | float | None) -> None:
        """Record the gradient norm; DeepSpeed has none before its first step."""
        if norm is not None:
            whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
            self._norm = torch.as_tensor(whole, device=self._device)

    def is_ill(self) -> Tensor:
        """Return a scalar tensor on the device: 1 if any number is not finite, else 0."""
        odd = [mask.any().to(self._device) for _, _, mask in self._seen]
        if self._norm is not None:
            odd.append(~self._norm.isfinite())
        return torch.stack(odd).any().long() if odd else torch.zeros((), dtype=torch.long, device=self._device)

    def stop(self, where: str, kept: str) -> None:
        """End the run; every process calls this when `is_ill` was 1 on any of them.

        Args:
            where: step and phase, as the error's opening words.
            kept: a clause about the checkpoint that is kept.

        Raises:
            NotFinite: names the values that are not finite, and their samples.
        """
        told: list[tuple[dict[str, list[str]], list[str], str]] = gather_object([self._told()])
        odd: dict[str, list[str]] = {}
        for names, _, _ in told:
            for name, keys in names.items():
                odd.setdefault(name, []).extend(keys)
        problems = [f"the {name} of {named(keys)}" for name, keys in odd.items()]
        norm = told[0][2]
        if not problems:
            everyone = [key for _, keys, _ in told for key in keys]
            problems = [f"the gradient of {named(everyone)}"]
        raise NotFinite(f"{where}, {' and '.join(problems)} is not finite{norm}. Nothing was saved; {kept} {ADVICE}")

    def _told(self) -> tuple[dict[str, list[str]], list[str], str]:
        odd: dict[str, list[str]] = {}
        keys: dict[str, None] = {}
        for batch, name, mask in self._seen:
            for key, counts, is_odd in zip(batch.keys, batch.counts_in_loss.tolist(), mask.tolist(), strict=True):
                if counts:
                    keys[key] = None
                if is_odd:
                    odd.setdefault(name, []).append(key)
        norm = "" if self._norm is None else f" (norm of the gradient: {float(self._norm):.4g})"
        return odd, list(keys), norm


def anywhere(accelerator: Accelerator, flags: Sequence[Tensor | bool]) -> list[bool]:
    """Return, for each flag, whether any process has set it; this takes one reduction and one device read."""
    own = torch.stack([torch.as_tensor(flag, dtype=torch.long, device=accelerator.device) for flag in flags])
    found: list[int] = accelerator.reduce(own, reduction="sum").tolist()
    return [bool(number) for number in found]
