"""Attention within each of the samples that are packed end to end into one row.

SDPA on the whole row would compute the full [1, 1, N, N] square and mask everything outside the samples.

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
    """Make a decoder that uses SDPA attend within each sample; other kernels are unchanged.

    The change is permanent, because gradient checkpointing recomputes layers after the forward pass has ended.
    """
    if model.language_model.config._attn_implementation == "sdpa":
        model.language_model.set_attn_implementation(_NAME)


def packed_inputs(model: VicoInternVL, lengths: list[int] | None, device: torch.device) -> dict[str, Any]:
    """Return the decoder's inputs, besides embeddings, for samples of the given lengths that share one row.

    The result is empty if `lengths` is None, which means that every sample has its own row.
    """
    if lengths is None:
        return {}
    # Where positions restart, transformers sees a new sequence that can't attend to the one before it.
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
    """Attend within each sample: queries [1, H, N, d], keys and values [1, G, N, d] -> [1, N, H, d]."""
    parts = (torch.split(states, sample_lengths, dim=2) for states in (query, key, value))
    attended = [
        sdpa_attention_forward(module, own_query, own_key, own_value, attention_mask, **others)[0]
        for own_query, own_key, own_value in zip(*parts, strict=True)
    ]
    return torch.cat(attended, dim=1), None


def _no_mask(**_: Any) -> None:
    """Return no mask: a single sample is causal, which SDPA handles without one."""


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _no_mask)
