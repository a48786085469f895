"""Cosines of tokens, in float32 whatever the model's type."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(tokens: Tensor) -> Tensor:
    """Tokens [..., D] of length 1, float32; one of zeros stays as it is."""
    tokens = tokens.float()
    norms: Tensor = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    # No epsilon, which would bend short vectors: only a division by zero is kept from.
    return tokens / norms.where(norms > 0, 1.0)


def cosines(tokens: Tensor) -> Tensor:
    """[..., n, n], float32, of tokens [..., n, D]."""
    units = unit(tokens)
    return units @ units.transpose(-1, -2)
