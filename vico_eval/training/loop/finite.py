"""Checks for finite numbers. A training that computes NaN or infinity stops, names the place, and saves nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from vico_eval.errors import UserError, listed

NUM_NAMED = 8
"""The maximum number of samples, documents or weights that an error names."""

ADVICE = "Check the samples or weights named here, lower the learning rate, or compute in float32."


class NotFinite(UserError):
    """A loss, a gradient, a loss ratio, a score or a weight is NaN or infinite."""


def named(names: Sequence[str]) -> str:
    """List the first few names for an error, and the number of the rest."""
    return listed(names, NUM_NAMED)


def local(value: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor (FSDP2), or the tensor itself."""
    return value.to_local() if isinstance(value, DTensor) else value


def all_finite(values: Iterable[Tensor]) -> Tensor:
    """Whether all values of some tensors are finite, as a bool tensor; the caller decides when to read it."""
    found = [local(value.detach()).isfinite().all() for value in values]
    return torch.stack([one.to(found[0].device) for one in found]).all() if found else torch.tensor(True)


def odd_weights(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the weights that contain NaN or infinity."""
    return [name for name, value in weights if not bool(local(value.detach()).isfinite().all())]


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Serialise to strict JSON, with NaN (an unknown value) as null."""
    return json.dumps(_known(value), indent=indent, allow_nan=False)


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _known(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
