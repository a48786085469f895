"""Cosines of tokens, in float32 whatever the model's dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(tokens: Tensor) -> Tensor:
    """Tokens [..., D] scaled to length 1, float32; a token of zeros stays zero."""
    tokens = tokens.float()
    norms: Tensor = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    # No epsilon, which would leave short vectors shorter than 1; only division by zero is avoided.
    return tokens / norms.where(norms > 0, 1.0)


def cosines(tokens: Tensor) -> Tensor:
    """Cosines [..., n, n], float32, of tokens [..., n, D]."""
    units = unit(tokens)
    return units @ units.transpose(-1, -2)
