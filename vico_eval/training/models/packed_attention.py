"""Attention of samples that stand end to end in one row, sample by sample.

SDPA would compute the whole square of the row, [1, 1, N, N], and mask what lies outside of the samples.

Shapes: N = tokens of the row; H = heads, G = key heads; d = width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vico_eval.families.internvl.modeling import VicoInternVL

_NAME = "sdpa_by_sample"


def attend_by_sample(model: VicoInternVL) -> None:
    """Have a decoder that attends by SDPA do so sample by sample; other kernels stay as they are.

    For good, not while it computes: gradient checkpointing computes once more behind it.
    """
    if model.language_model.config._attn_implementation == "sdpa":
        model.language_model.set_attn_implementation(_NAME)


def packed_inputs(model: VicoInternVL, lengths: list[int] | None, device: torch.device) -> dict[str, Any]:
    """What a decoder's forward pass has to be told, besides embeddings, of samples of so many tokens each in one row.

    Nothing where `lengths` is None, which means a row each.
    """
    if lengths is None:
        return {}
    # Positions that begin anew are to transformers a new sequence, which doesn't see the one before it.
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    is_own = model.language_model.config._attn_implementation == _NAME
    return {"position_ids": positions, **({"sample_lengths": lengths} if is_own else {})}


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    sample_lengths: list[int],
    **others: Any,
) -> tuple[Tensor, None]:
    """[1, N, H, d] of queries [1, H, N, d] and keys and values [1, G, N, d]."""
    parts = (torch.split(states, sample_lengths, dim=2) for states in (query, key, value))
    attended = [
        sdpa_attention_forward(module, own_query, own_key, own_value, attention_mask, **others)[0]
        for own_query, own_key, own_value in zip(*parts, strict=True)
    ]
    return torch.cat(attended, dim=1), None


def _no_mask(**_: Any) -> None:
    """A sample alone is causal, which SDPA knows by itself."""


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _no_mask)
