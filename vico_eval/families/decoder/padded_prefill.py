"""Row-by-row prefill of a padded batch whose mask would take gigabytes.

SDPA masks padding with a tensor [batch, 1, N, N]: 4 GB for 16 prompts of up to 16K tokens, and twice as much after a
kernel converts it to floats. A row without padding needs no mask, because SDPA has a causal mode.

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
"""Maximum size of a batch's mask; beyond it, rows attend one by one."""

_NAME = "sdpa_padded_rows"


@contextmanager
def bounded_masks(config: Any) -> Iterator[None]:
    """Within this context, a decoder of that configuration makes no mask beyond `MASK_BYTES`. Kernels other than SDPA
    don't change."""
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
    """Return SDPA's mask, or, for a padded prefill whose mask is too large, which columns aren't padding, [batch, N],
    bool."""
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
    """Return [batch, n, H, d] for queries [batch, H, n, d] and keys and values [batch, G, N, d]; zero for padding."""
    if attention_mask is None or attention_mask.ndim == 4:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **others)
    if query.shape[2] == 1:  # the last layer, which only processes the last token
        return sdpa_attention_forward(module, query, key, value, attention_mask[:, None, None], **others)
    batch, heads, length, _ = query.shape
    output = query.new_zeros(batch, length, heads, value.shape[-1])
    for row, start in enumerate((~attention_mask).sum(dim=1).tolist()):  # left padding
        own = (slice(row, row + 1), slice(None), slice(start, None))
        attended, _ = sdpa_attention_forward(module, query[own], key[own], value[own], None, **others)
        output[row, start:] = attended[0]
    return output, None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _mask)
