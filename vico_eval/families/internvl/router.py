"""ViR, the visual resolution router, which decides whether a tile can be compressed.

Source: ViCO (arXiv 2510.12793), section 3.2, and the modelling code released with InternVL3.5-Flash.

Shapes: tiles = tiles in the call; N = h*w vision tokens of a tile; C = vision width; heads = attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_BLOCKS = 4
NUM_REPEATS = 3
GATING_DROPOUT = 0.1
"""Dropout rate in training, from the released class."""


class QueryAttention(nn.Module):
    """Multi-head attention of one query per tile over that tile's vision tokens, with torch's weight layout.

    With a single query, it is cheaper to project the query into the space of the tokens than every token into the space
    of the keys: `q . (W_k x) = (W_k^T q) . x`. Likewise, values are mixed before they are projected. The key bias adds
    a constant to all scores of a head, which softmax removes.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """query [tiles, C], tokens [tiles, N, C] -> [tiles, C]."""
        weight_q, weight_k, weight_v = self.in_proj_weight.chunk(3)
        bias_q, _, bias_v = self.in_proj_bias.chunk(3)
        heads, head_dim = self.num_heads, query.shape[-1] // self.num_heads
        projected = F.linear(query, weight_q, bias_q).unflatten(-1, (heads, head_dim))
        in_token_space = torch.einsum("thd,hdc->thc", projected, weight_k.unflatten(0, (heads, head_dim)))
        scores = torch.einsum("thc,tnc->thn", in_token_space, tokens) * head_dim**-0.5
        mixed = torch.einsum("thn,tnc->thc", scores.softmax(dim=-1), tokens)
        values = torch.einsum("thc,hdc->thd", mixed, weight_v.unflatten(0, (heads, head_dim)))
        return self.out_proj(values.flatten(1) + bias_v)  # type: ignore[no-any-return]


class GatingBlock(nn.Module):
    """Residual MLP with a final LayerNorm in its branch; in training, dropout follows GELU and the second layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(GATING_DROPOUT)

    def forward(self, hidden: Tensor) -> Tensor:
        """[tiles, C] -> [tiles, C]."""
        widened = self.dropout(F.gelu(self.up(hidden)))
        return hidden + self.norm(self.dropout(self.down(widened)))  # type: ignore[no-any-return]


class Router(nn.Module):
    """Attention pooling over a tile's vision tokens, followed by a gate with two logits: compress, keep."""

    def __init__(self, width: int, num_heads: int = 16) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, width))
        self.first_attention = QueryAttention(width, num_heads)
        self.first_norm = nn.LayerNorm(width)
        # The released weights contain four attention blocks, but the released code runs the second one three times and
        # never the third and fourth. They were trained that way, so the unused blocks have no module here.
        self.repeated_attention = QueryAttention(width, num_heads)
        self.repeated_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(GatingBlock(width) for _ in range(NUM_BLOCKS))
        self.gate_norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2)

    def pool(self, vit_tokens: Tensor) -> Tensor:
        """[tiles, 1 + N, C], class token first, which is dropped -> [tiles, C]."""
        tokens = vit_tokens[:, 1:]
        query = self.query.expand(len(tokens), -1)
        query = self.first_norm(self.first_attention(query, tokens))
        for _ in range(NUM_REPEATS):
            query = self.repeated_norm(self.repeated_attention(query, tokens))
        return query  # type: ignore[no-any-return]

    def forward(self, vit_tokens: Tensor) -> Tensor:
        """Return gate logits [tiles, 2] for [tiles, 1 + N, C]; column 0 is "compress", column 1 "keep"."""
        hidden = self.pool(vit_tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.gate(self.gate_norm(hidden))  # type: ignore[no-any-return]

    def p_compress(self, vit_tokens: Tensor) -> Tensor:
        """Return the probability of "compress" per tile, [tiles], in the model's dtype."""
        # A router from another checkpoint is in no device map, so its input must be moved here.
        logits: Tensor = self(vit_tokens.to(self.query.device))
        return logits.softmax(dim=-1)[:, 0]
