"""PVTC: a connector in which each visual token attends to its window of vision tokens with two queries.

The local query of a window is its vision tokens, stacked along the channels. The global query is the tile's class
token, scaled per window. Each attends to the window's vision tokens in its own block; a visual token is the sum of
both.

Source: InternVL-X (arXiv 2503.21307), point-to-region visual token compression, as in the code released with it (its
`projector`), which has one block per branch; the paper's "MLP" is a norm, a linear layer and SiLU.

Shapes: tiles = tiles in the call; S = vision tokens along a tile's side; C = vision width; M = side of a window in
vision tokens; N = S / M; windows = tiles * N * N; D = decoder width.
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.connectors import pixel_shuffle

NUM_HEADS = 16
NORM_EPS = 1e-6
"""The same for all decoders."""

DROP_RATE = 0.1
"""Probability that a window's residual branch is dropped in training."""

MAX_WINDOWS = 16384
"""Maximum number of windows per attention call, 64 tiles of 256, which bounds memory; attention kernels support at most
65,535."""


class PvtcConnector(nn.Module):
    """Visual tokens from a local and a global query for each window of vision tokens.

    Args:
        vision_width: C.
        decoder_width: D.
        vit_grid: S, because the scales of the global query determine the number of windows.
        block: M.
        version: of the pixel shuffle that makes local queries; "v1" transposes them against their windows, as in the
            released code under that setting.

    Raises:
        CheckpointError: the sizes allow no windows or heads.
    """

    def __init__(
        self, vision_width: int, decoder_width: int, vit_grid: int, block: int = 2, version: str = "v2"
    ) -> None:
        super().__init__()
        if block < 1 or block & (block - 1) or vit_grid % block:
            raise CheckpointError(
                f"PVTC got windows of {block} x {block} vision tokens (downsample_ratio is 1/{block}) on a grid of "
                f"{vit_grid} x {vit_grid}; expected a power of two that divides the grid. Use weights and config of "
                "the same checkpoint, or another downsample_ratio or tile size for a new one."
            )
        if decoder_width % NUM_HEADS:
            raise CheckpointError(
                f"PVTC got a decoder of width {decoder_width}; expected a multiple of its {NUM_HEADS} attention heads."
            )
        self.block = block
        self.version = version
        self.local_query = _Projection(block * block * vision_width, decoder_width)
        self.global_query = _Projection(vision_width, decoder_width)
        self.key_value = _Projection(vision_width, decoder_width)
        side = vit_grid // block
        self.cls_scale = nn.Parameter(torch.randn(1, side, side, decoder_width))
        self.local_block = _WindowBlock(decoder_width)
        self.global_block = _WindowBlock(decoder_width)

    def forward(self, vit_tokens: Tensor) -> Tensor:
        """[tiles, 1 + S*S, C] -> [tiles, N*N, D], row by row."""
        local, from_class = self.branches(vit_tokens)
        return local + from_class

    def branches(self, vit_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the local and the global query, [tiles, N*N, D] each, whose sum is the visual
        tokens."""
        tiles_at_once = max(1, MAX_WINDOWS // self.cls_scale[..., 0].numel())
        parts = [self._branches(part) for part in torch.split(vit_tokens, tiles_at_once)]
        return torch.cat([local for local, _ in parts]), torch.cat([from_class for _, from_class in parts])

    def _branches(self, vit_tokens: Tensor) -> tuple[Tensor, Tensor]:
        tiles = len(vit_tokens)
        keys = windows(self.key_value(vit_tokens[:, 1:]), self.block)  # [windows, M*M, D]
        local = self.local_query(pixel_shuffle(vit_tokens, self.block, self.version))  # [tiles, N*N, D]
        # Scaled after the activation, each window by its own vector.
        from_class = self.global_query(vit_tokens[:, :1]) * self.cls_scale.flatten(1, 2)
        return (
            self.local_block(local.flatten(0, 1)[:, None], keys).view(tiles, -1, local.shape[-1]),
            self.global_block(from_class.flatten(0, 1)[:, None], keys).view(tiles, -1, local.shape[-1]),
        )


def windows(tokens: Tensor, block: int) -> Tensor:
    """Split into squares of `block` x `block` neighbours: [tiles, S*S, D] -> [tiles * N*N, block*block, D], both row by
    row."""
    tiles, length, width = tokens.shape
    side = isqrt(length)
    squares = tokens.reshape(tiles, side // block, block, side // block, block, width)
    return squares.transpose(2, 3).reshape(-1, block * block, width)


class _Projection(nn.Module):
    def __init__(self, width: int, decoder_width: int) -> None:
        super().__init__()
        self.norm = LlamaRMSNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, decoder_width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.silu(self.linear(self.norm(tokens)))


class _WindowBlock(nn.Module):
    """Cross attention from a query to its window, then a gated MLP, both with residual connections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm = LlamaRMSNorm(width, eps=NORM_EPS)
        self.key_norm = LlamaRMSNorm(width, eps=NORM_EPS)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.mlp_norm = LlamaRMSNorm(width, eps=NORM_EPS)
        self.gate = nn.Linear(width, 4 * width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries [windows, 1, D] and the vision tokens of their windows [windows, M*M, D] -> [windows, 1, D]."""
        hidden = query + self._drop(self._attend(query, keys))
        normed = self.mlp_norm(hidden)
        return hidden + self._drop(self.down(F.silu(self.gate(normed)) * self.up(normed)))

    def _attend(self, query: Tensor, keys: Tensor) -> Tensor:
        query, keys = self.query_norm(query), self.key_norm(keys)
        heads = [
            tokens.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2)  # [windows, heads, tokens, D / heads]
            for tokens in (self.query(query), self.key(keys), self.value(keys))
        ]
        attended = F.scaled_dot_product_attention(*heads)
        return self.projection(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _drop(self, branch: Tensor) -> Tensor:
        """Apply stochastic depth: in training, a branch [windows, 1, D] is dropped for some windows and scaled up for
        the others."""
        if not self.training:
            return branch
        kept = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - DROP_RATE)
        return branch * kept / (1 - DROP_RATE)
