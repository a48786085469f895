"""What the package flash-attn computes, in plain PyTorch, so that transformers' own path to it runs on a CPU.

Source: the interface of flash-attn 2, `flash_attn_func` and `flash_attn_varlen_func`; masks are aligned to the lower
right, as from version 2.1 on.

Shapes: q, k = tokens of one sequence; H = heads, a multiple of the key heads G; d = width of a head.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

CALLS: Counter[str] = Counter()
"""How often each of the two was called."""


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0):
    """[batch, q, H, d] of queries [batch, q, H, d] and keys and values [batch, k, G, d], no padding among them."""
    CALLS["dense"] += 1
    return torch.stack([_attend(*each, softmax_scale, causal) for each in zip(q, k, v, strict=True)])


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
):
    """The same of sequences packed one behind the other; sequence i is between entries i and i + 1 of `cu_seqlens`."""
    CALLS["packed"] += 1
    of_queries, of_keys = (ends.tolist() for ends in (cu_seqlens_q, cu_seqlens_k))
    assert len(of_queries) == len(of_keys)
    assert (of_queries[-1], of_keys[-1]) == (len(q), len(k))
    parts = []
    for place in range(len(of_queries) - 1):
        rows, columns = (slice(*ends[place : place + 2]) for ends in (of_queries, of_keys))
        assert rows.stop - rows.start <= max_seqlen_q
        assert columns.stop - columns.start <= max_seqlen_k
        parts.append(_attend(q[rows], k[columns], v[columns], softmax_scale, causal))
    return torch.cat(parts)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None, causal: bool) -> Tensor:
    """[q, H, d] of one sequence."""
    group = queries.shape[1] // keys.shape[1]
    keys, values = (states.repeat_interleave(group, dim=1).float() for states in (keys, values))
    logits = torch.einsum("qhd,khd->hqk", queries.float(), keys) * (scale or queries.shape[-1] ** -0.5)
    if causal:
        num_queries, num_keys = logits.shape[1:]
        is_later = torch.arange(num_keys) > torch.arange(num_queries)[:, None] + num_keys - num_queries
        logits = logits.masked_fill(is_later, float("-inf"))
    return torch.einsum("hqk,khd->qhd", logits.softmax(dim=-1), values).to(queries.dtype)
