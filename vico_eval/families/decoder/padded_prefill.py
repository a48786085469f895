"""Prefill of a padded batch row by row, where its mask would take gigabytes.

SDPA masks padding by a tensor [batch, 1, N, N]: 16 prompts of up to 16K tokens take 4 GB of it, and twice that once a
kernel has made numbers of it. A row without its padding needs no mask at all, since SDPA knows what causal means.

Shapes: batch = rows of the call; N = prompt tokens; H = heads, G = key heads; d = width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

MASK_BYTES = 2**28
"""What the mask of a batch may take; beyond it, rows attend one by one."""

_NAME = "sdpa_padded_rows"


@contextmanager
def bounded_masks(config: Any) -> Iterator[None]:
    """Inside, a decoder of that configuration makes no mask beyond `MASK_BYTES`; other kernels than SDPA stay as is."""
    before = config._attn_implementation
    if before != "sdpa":
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _mask(
    *, batch_size: int, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **others: Any
) -> Tensor | None:
    """SDPA's mask; of a padded prefill whose mask is too large, which columns are real, [batch, N], bool."""
    is_prefill = q_length == kv_length > 1 and others.get("local_size") is None
    if attention_mask is not None and is_prefill and batch_size * q_length * kv_length > MASK_BYTES:
        return attention_mask
    mask: Tensor | None = sdpa_mask(
        batch_size=batch_size, q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **others
    )
    return mask


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any
) -> tuple[Tensor, None]:
    """[batch, n, H, d] of queries [batch, H, n, d] and keys and values [batch, G, N, d]; zero for padding."""
    if attention_mask is None or attention_mask.ndim == 4:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **others)
    if query.shape[2] == 1:  # the last layer's, which works on the last token alone
        return sdpa_attention_forward(module, query, key, value, attention_mask[:, None, None], **others)
    batch, heads, length, _ = query.shape
    output = query.new_zeros(batch, length, heads, value.shape[-1])
    for row, start in enumerate((~attention_mask).sum(dim=1).tolist()):  # padding stands left
        own = (slice(row, row + 1), slice(None), slice(start, None))
        attended, _ = sdpa_attention_forward(module, query[own], key[own], value[own], None, **others)
        output[row, start:] = attended[0]
    return output, None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _mask)
