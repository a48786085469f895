"""Visual tokens with real shapes and random contents, as inputs of selection methods.

Shapes: as in `VisualTokens`; C = vision width.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from math import isqrt

import torch
from torch import Tensor

from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.connectors import HighConnector
from vico_eval.families.internvl.token_places import grid_yx, tokens_of
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    P_COMPRESS,
    QUESTION,
    VisualTokens,
)

TILE_TOKENS = 256
TILE_SIDE = isqrt(TILE_TOKENS)
KINDS = 24
"""Number of different objects in an image. A token is one of them plus noise, so that tokens resemble each other as in
real images."""

KEY_WIDTH = 64
"""Width of the encoder's keys, which is that of one head in every InternViT."""

QUESTION_TOKENS = 20


def random_visual_tokens(
    num_tokens: int,
    needs: AbstractSet[str],
    *,
    width: int,
    vision_width: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VisualTokens:
    """Make one image's visual tokens: whole tiles with a thumbnail, or one smaller tile. Equal arguments give equal
    tokens.

    Args:
        num_tokens: n, a multiple of 256, or the square of an even number below 16.
        needs: the needs of the selection part that receives the tokens.
        width: D.
        vision_width: C.
        device, dtype: for tokens, question embeddings and the connector; all else is float32.

    Raises:
        ConfigError: no image has `num_tokens` tokens.
    """
    if not is_whole(num_tokens):
        raise ConfigError(
            f"got {num_tokens} visual tokens; expected a multiple of {TILE_TOKENS} (whole tiles), or the square of a "
            "smaller even number, such as 64 or 144."
        )
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    num_tiles = max(1, num_tokens // TILE_TOKENS)
    counts = torch.full((num_tiles,), num_tokens // num_tiles)
    kind = torch.randint(KINDS, (num_tokens,), generator=generator)
    attention = normal(num_tiles, num_tokens // num_tiles).softmax(dim=1).flatten()
    keys = normal(KINDS, KEY_WIDTH)[kind] + normal(num_tokens, KEY_WIDTH)
    tile = tokens_of(counts)
    has_question = QUESTION in needs
    return VisualTokens(
        key="prefill",
        tokens=(normal(KINDS, width)[kind] + normal(num_tokens, width)).to(device, dtype),
        image=torch.zeros(num_tokens, dtype=torch.int64, device=device),
        tile=tile.to(device),
        grid_yx=grid_yx([(max(1, num_tiles - 1), 1, num_tiles)], counts, TILE_SIDE, swapped=False).to(device),
        scores=attention.to(device) if ENCODER_ATTENTION in needs else None,
        keys=keys.to(device) if ENCODER_KEYS in needs else None,
        p_compress=torch.rand(num_tiles, generator=generator)[tile].to(device) if P_COMPRESS in needs else None,
        question_ids=torch.arange(QUESTION_TOKENS, device=device) if has_question else None,
        question_embeddings=normal(QUESTION_TOKENS, width).to(device, dtype) if has_question else None,
        connect_mixed=_connector(normal(num_tokens, 4 * vision_width).to(device, dtype), width)
        if CONNECTOR_INPUTS in needs
        else None,
    )


def _connector(inputs: Tensor, width: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a `VisualTokens.connect_mixed` for the connector's inputs of each token, [n, 4 C]."""
    with torch.device(inputs.device):
        connector = HighConnector(inputs.shape[1] // 4, width).to(inputs.dtype)
    if not inputs.is_cuda:
        prepare_for_cpu(connector)

    def connect_mixed(members: Tensor, weights: Tensor) -> Tensor:
        mixed = weights @ inputs[members].float()
        return connector.project(mixed.to(inputs.dtype))

    return connect_mixed


def is_whole(num_tokens: int) -> bool:
    """Whether an image can have that number of visual tokens."""
    if num_tokens >= TILE_TOKENS:
        return num_tokens % TILE_TOKENS == 0
    return num_tokens > 0 and isqrt(num_tokens) ** 2 == num_tokens and num_tokens % 2 == 0
