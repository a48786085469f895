"""Scores and keys from one layer of a vision encoder, while all layers stay on their fast kernel.

The attention modules of transformers' InternViT and CLIP use the same names: `q_proj`, `k_proj`, `num_heads`, and, in
some InternViTs, a norm of queries and keys. Keys are captured from the layer. Queries are recomputed from the layer's
input for the requested rows.

Shapes: images = pieces in the call; N = patches of a piece, without the class token; heads, head_dim = the layer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vico_eval.methods.interface import ENCODER_ATTENTION, ENCODER_KEYS, ScoreSource, SelectionPart

CLS, MEAN = "cls", "mean"


def score_source(selection: SelectionPart | None) -> ScoreSource | None:
    """Return the source of the encoder's scores that a part needs; None if it needs none."""
    if selection is None or not selection.needs & {ENCODER_ATTENTION, ENCODER_KEYS}:
        return None
    return selection.score_source


class PatchAttention(NamedTuple):
    """Scores and keys of each patch from an encoder layer."""

    scores: Tensor
    """[images, N], float32: softmax attention that the patch receives, mean over heads and over the requested rows."""

    keys: Tensor
    """[images, N, head_dim], float32: mean over heads."""


class LayerInput:
    """The inputs and keys of a layer's attention in the encoder calls within `watching`."""

    def __init__(self, attention: Any, *, rows: str, has_class_token: bool) -> None:
        """
        Args:
            attention: the layer's attention module.
            rows: `cls` or `mean`.
            has_class_token: whether the first token is a class token.
        """
        self._attention = attention
        self._rows = rows
        self._first = int(has_class_token)
        self._keys: Tensor | None = None
        self._found: list[PatchAttention] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the encoder's calls within this context."""
        self._found.clear()
        attention = self._attention
        handles = (
            getattr(attention, "k_norm", attention.k_proj).register_forward_hook(self._note_keys),
            attention.register_forward_hook(self._note, with_kwargs=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def taken(self) -> PatchAttention:
        """Return the result for all pieces that were encoded since `watching` began or the last call."""
        scores, keys = (torch.cat(each) for each in zip(*self._found, strict=True))
        self._found.clear()
        return PatchAttention(scores, keys)

    def _note_keys(self, _: nn.Module, __: tuple[Any, ...], keys: Tensor) -> None:
        self._keys = keys

    def _note(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], __: object) -> None:
        assert self._keys is not None, "the layer has made keys by now"
        keys, self._keys = self._keys, None
        hidden: Tensor = arguments[0] if arguments else named["hidden_states"]
        # Piece by piece, because the mean over all rows needs whole attention matrices.
        size = 1 if self._rows == MEAN else len(hidden)
        self._found.extend(map(self._of, hidden.split(size), keys.split(size)))

    def _of(self, hidden: Tensor, all_keys: Tensor) -> PatchAttention:
        attention = self._attention
        keys = self._heads(all_keys)
        wanted = hidden[:, :1] if self._rows == CLS else hidden[:, self._first :]
        queries = self._heads(getattr(attention, "q_norm", nn.Identity())(attention.q_proj(wanted)))
        # Head by head if each has a whole matrix, because those of all heads wouldn't fit into the CPU's caches.
        size = 1 if self._rows == MEAN else attention.num_heads
        received = [
            (some @ theirs.transpose(-1, -2)).mul_(attention.scale).softmax(dim=-1)[..., self._first :].mean(dim=(1, 2))
            for some, theirs in zip(queries.split(size, dim=1), keys.split(size, dim=1), strict=True)
        ]  # [images, N] each
        return PatchAttention(torch.stack(received).mean(dim=0), keys[:, :, self._first :].mean(dim=1))

    def _heads(self, states: Tensor) -> Tensor:
        """Return [images, heads, tokens, head_dim], float32."""
        heads: Tensor = states.unflatten(-1, (self._attention.num_heads, -1))
        return heads.transpose(1, 2).float()
