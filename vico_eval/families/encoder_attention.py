"""Scores and keys from one layer of a vision encoder, while all layers stay on their fast kernel.

The attention modules of transformers' InternViT and CLIP name their parts alike: `q_proj`, `k_proj`, `num_heads`, and,
in some InternViTs, a norm of queries and keys. The keys are those that the layer makes for itself. Queries are computed
once more from the layer's input, for the rows that are wanted.

Shapes: images = pieces in the call; N = patches of a piece, the class token not counted; heads, head_dim = the
layer's.
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
    """Where the encoder's scores come from that a part needs; None where it needs none."""
    if selection is None or not selection.needs & {ENCODER_ATTENTION, ENCODER_KEYS}:
        return None
    return selection.score_source


class PatchAttention(NamedTuple):
    """What an encoder's layer says of each patch."""

    scores: Tensor
    """[images, N], float32: softmax attention that the patch receives, mean over heads and over the rows asked for."""

    keys: Tensor
    """[images, N, head_dim], float32: mean over heads."""


class LayerInput:
    """What a layer's attention got in the calls of the encoder inside `watching`."""

    def __init__(self, attention: Any, *, rows: str, has_class_token: bool) -> None:
        """
        Args:
            attention: the layer's module.
            rows: `cls` or `mean`.
            has_class_token: whether the first token is no patch.
        """
        self._attention = attention
        self._rows = rows
        self._first = int(has_class_token)
        self._keys: Tensor | None = None
        self._found: list[PatchAttention] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, what the encoder sees is noted."""
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
        """Of all pieces that were encoded since."""
        scores, keys = (torch.cat(each) for each in zip(*self._found, strict=True))
        self._found.clear()
        return PatchAttention(scores, keys)

    def _note_keys(self, _: nn.Module, __: tuple[Any, ...], keys: Tensor) -> None:
        self._keys = keys

    def _note(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], __: object) -> None:
        assert self._keys is not None, "the layer has made keys by now"
        keys, self._keys = self._keys, None
        hidden: Tensor = arguments[0] if arguments else named["hidden_states"]
        # Piece by piece: the mean of all rows takes whole attention matrices.
        size = 1 if self._rows == MEAN else len(hidden)
        self._found.extend(map(self._of, hidden.split(size), keys.split(size)))

    def _of(self, hidden: Tensor, all_keys: Tensor) -> PatchAttention:
        attention = self._attention
        keys = self._heads(all_keys)
        wanted = hidden[:, :1] if self._rows == CLS else hidden[:, self._first :]
        queries = self._heads(getattr(attention, "q_norm", nn.Identity())(attention.q_proj(wanted)))
        # Heads one by one, where each has a matrix: those of all heads together would leave the CPU's caches.
        size = 1 if self._rows == MEAN else attention.num_heads
        received = [
            (some @ theirs.transpose(-1, -2)).mul_(attention.scale).softmax(dim=-1)[..., self._first :].mean(dim=(1, 2))
            for some, theirs in zip(queries.split(size, dim=1), keys.split(size, dim=1), strict=True)
        ]  # [images, N] each
        return PatchAttention(torch.stack(received).mean(dim=0), keys[:, :, self._first :].mean(dim=1))

    def _heads(self, states: Tensor) -> Tensor:
        """[images, heads, tokens, head_dim], float32."""
        heads: Tensor = states.unflatten(-1, (self._attention.num_heads, -1))
        return heads.transpose(1, 2).float()
