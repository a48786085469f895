"""Numbers that are none: a training that computes one stops, names where, and writes nothing of it."""

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
"""Samples, documents or weights that an error names."""

ADVICE = "Look at what it names, lower the learning rate, or compute in float32."


class NotFinite(UserError):
    """A loss, a gradient, a loss ratio, a score or a weight is NaN or infinite."""


def named(names: Sequence[str]) -> str:
    """Names as an error lists them: the first few, and how many more there are."""
    return listed(names, NUM_NAMED)


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor in shards (FSDP2); any other as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def all_finite(values: Iterable[Tensor]) -> Tensor:
    """Whether every number of some tensors is one, as a tensor: looking at it is left to the caller."""
    found = [local(value.detach()).isfinite().all() for value in values]
    return torch.stack([one.to(found[0].device) for one in found]).all() if found else torch.tensor(True)


def odd_weights(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of those that hold a number that is none."""
    return [name for name, value in weights if not bool(local(value.detach()).isfinite().all())]


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: what is unknown, NaN in Python, is null."""
    return json.dumps(_known(value), indent=indent, allow_nan=False)


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _known(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
