"""Choice of the tokens with the highest scores, and random scores."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor


def highest(scores: Tensor, is_visual: Tensor, num_keep: int) -> Tensor:
    """All text and the `num_keep` highest-scoring visual tokens; of equal scores, the earlier token.

    Args:
        scores: [tokens], text included.
        is_visual: [tokens], bool.
        num_keep: 0..is_visual.sum().

    Returns:
        [text + num_keep], int64, ascending: the decoder needs the order of the text, not of the score.
    """
    visual = is_visual.nonzero()[:, 0]
    # Text shares the softmax but never competes for a place. Stable, because topk does not define the order of ties.
    order = scores[visual].sort(descending=True, stable=True).indices
    stays = ~is_visual
    stays[visual[order[:num_keep]]] = True
    return stays.nonzero()[:, 0]


def random_scores(seed: str, num_tokens: int) -> Tensor:
    """Uniform random scores, [num_tokens]; the same for the same seed on every machine."""
    generator = torch.Generator().manual_seed(int.from_bytes(sha256(seed.encode()).digest()[:7], "big"))
    return torch.rand(num_tokens, generator=generator)
