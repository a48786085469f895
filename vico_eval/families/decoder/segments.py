"""Segments: the sets of tokens in a decoder's layers, and their changes.

A segment is a sequence of consecutive layers with the same tokens.

Shapes: batch = rows of the call, a request's beams next to each other; N = prompt tokens; n = tokens of a segment;
tokens = those of one request, without padding; D = width; L = layers; axes = axes of the position ids; tiles = those of
all requests; C = vision width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vico_eval.families.decoder.cache import PreallocatedCache
from vico_eval.methods.interface import LayerState, NextTokens


@dataclass(frozen=True)
class Prompt:
    """Information about a batch for parts, besides its embeddings."""

    is_visual: Tensor
    """[requests, N], bool, including padding. A forward pass over prompt and answer has more than N columns."""

    keys: tuple[str, ...]
    """[requests]: document keys."""

    vit_tokens: Tensor | None = None
    """[tiles, 1 + h*w, C], request by request, for a part that projects them again."""

    num_tiles: tuple[int, ...] = ()
    """[requests]: number of tiles of each request."""

    added: Tensor | None = None
    """[features, M, D]: features of the M visual tokens, request by request, added after the first layers, one per
    layer (DeepStack)."""

    def visual_places(self, rows: int, length: int) -> Tensor:
        """Return the index of the visual token in each column, [rows, length], int64, on the CPU; -1 for text and
        padding.

        Args:
            rows: number of rows of the call, a multiple of the number of requests.
            length: number of columns of the call; those after the prompt's are an answer.
        """
        is_visual = self.is_visual.cpu()
        places = torch.full((len(is_visual), length), -1)
        places[:, : is_visual.shape[1]][is_visual] = torch.arange(int(is_visual.sum()))
        return places.repeat_interleave(rows // len(is_visual), dim=0)


@dataclass(frozen=True)
class Segment:
    """A run of layers with the same tokens. Which tokens these are is kept on the CPU, which avoids synchronisation."""

    first_layer: int
    is_real: Tensor
    """[batch, n], bool, on the CPU: False at the left padding."""

    is_visual: Tensor
    """[batch, n], bool, on the CPU."""

    positions: Tensor
    """[axes, batch, n], int64."""

    columns: Tensor
    """[batch, n], int64, on the CPU: the token's position in the input; -1 for padding and added tokens."""

    starts: list[int] = field(init=False)
    """[batch]: length of the padding."""

    visual_counts: list[int] = field(init=False)
    """[batch]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", (~self.is_real).sum(dim=1).tolist())
        object.__setattr__(self, "visual_counts", self.is_visual.sum(dim=1).tolist())

    @property
    def length(self) -> int:
        return self.is_real.shape[1]


class PromptCache(PreallocatedCache):
    """The KV cache of a batch whose layers have different numbers of tokens, with information about its prompts.

    Used for one `generate`. Reordering beams needs nothing beyond the base class, because all beams of a request have
    lost the same prompt tokens.
    """

    def __init__(self, config: Any, prompt: Prompt) -> None:
        super().__init__(config)
        self.prompt = prompt
        self.segments: list[Segment] = []
        self._visual_tokens: list[list[int]] = []

    def visual_tokens_per_layer(self, request: int) -> tuple[int, ...]:
        """Return the number of a request's visual tokens in each layer in prefill, [L]."""
        return tuple(counts[request] for counts in self._visual_tokens)

    def count_layer(self, segment: Segment) -> None:
        """Record the tokens of the next layer."""
        beams = len(segment.visual_counts) // len(self.prompt.keys)
        self._visual_tokens.append(segment.visual_counts[::beams])


def first_segment(
    hidden: Tensor, prompt: Prompt, attention_mask: Tensor | None, position_ids: Tensor | None
) -> Segment:
    """Return the tokens of the first layers.

    Raises:
        RuntimeError: the batch isn't left-padded, or doesn't contain the whole prompts.
    """
    batch, length = hidden.shape[:2]
    requests, prompt_length = prompt.is_visual.shape
    if length < prompt_length or batch % requests:
        raise RuntimeError(
            f"the prompts are [{requests}, {prompt_length}] and the input is [{batch}, {length}]: expected the whole "
            "prompt at once, and the same number of rows for every request"
        )
    is_visual = torch.zeros(batch, length, dtype=torch.bool)
    is_visual[:, :prompt_length] = prompt.is_visual.cpu().repeat_interleave(batch // requests, dim=0)
    is_real = torch.ones_like(is_visual) if attention_mask is None else attention_mask.cpu().bool()
    if bool((is_real[:, :-1] & ~is_real[:, 1:]).any()):
        raise RuntimeError("the batch has padding to the right of tokens; expected left padding")
    if position_ids is None:
        # Including padding, the default of transformers' decoders; `generate` always passes positions.
        position_ids = torch.arange(length)[None]
    positions = position_ids.to(hidden.device).expand(*position_ids.shape[:-2], batch, length)
    columns = torch.arange(length).where(is_real, -1)
    return Segment(0, is_real, is_visual & is_real, positions.reshape(-1, batch, length), columns)


def change_tokens(
    hidden: Tensor,
    segment: Segment,
    asked: list[NextTokens | None],
    answer: int,
    layer: int,
    renumbers: bool,
) -> tuple[Tensor, Segment]:
    """Return the chosen hidden states [batch, n', D], packed to the right, and their segment, which is the same one if
    nothing changed.

    Args:
        hidden: [batch, n, D].
        segment: the previous layers' segment.
        asked: [batch], the chosen tokens, with `source` on the CPU.
        answer: number of columns after the prompts'.
        layer: the next layer.
        renumbers: give the tokens of a changed row the positions 0, 1, 2, ..., on every axis.
    """
    device = hidden.device
    end = segment.length - answer
    rows = []
    moves = []
    for row, entry in enumerate(asked):
        start = segment.starts[row]
        columns = before = torch.arange(start, segment.length)
        if entry is not None:
            columns = torch.cat([torch.where(entry.source < 0, -1, start + entry.source), before[end - start :]])
        is_new_column = columns < 0
        moves.append(len(columns) != len(before) or not bool((is_new_column | (columns == before)).all()))
        if not moves[-1]:
            columns = before  # each new token represents the old one in its place
        elif not renumbers and bool(is_new_column.any()):
            raise RuntimeError("a part that keeps positions added tokens; only `renumbers` gives them positions")
        rows.append((columns, is_new_column))
    any_moves = any(moves)
    length = max(len(columns) for columns, _ in rows) if any_moves else segment.length
    source = torch.zeros(len(rows), length, dtype=torch.long)
    is_real = torch.zeros(len(rows), length, dtype=torch.bool)
    is_new = torch.zeros_like(is_real)
    for row, (columns, is_new_column) in enumerate(rows):
        span = slice(length - len(columns), None)
        source[row, span], is_new[row, span], is_real[row, span] = columns, is_new_column, True
    joins = source < 0
    source = source.clamp(min=0)
    source_there = source.to(device)
    packed = hidden.gather(1, source_there[..., None].expand(-1, -1, hidden.shape[-1])) if any_moves else hidden
    new = [entry.new.to(hidden) for entry in asked if entry is not None and entry.new is not None]
    if new:
        packed = packed.masked_scatter(is_new[..., None].to(device), torch.cat(new))
    if not any_moves:
        return packed, segment
    is_visual = (segment.is_visual.gather(1, source) | joins) & is_real
    positions = segment.positions.to(device).gather(2, source_there.expand(len(segment.positions), -1, -1))
    if renumbers:
        # Unchanged rows keep their positions, which aren't 0, 1, 2, ... if there are several axes.
        counted = (is_real.long().cumsum(dim=1) - 1).clamp(min=0).to(device)
        positions = torch.where(torch.tensor(moves, device=device)[:, None], counted, positions)
    origins = segment.columns.gather(1, source).masked_fill(joins | ~is_real, -1)
    return packed, Segment(layer, is_real, is_visual, positions, origins)


def with_feature(hidden: Tensor, segment: Segment, places: Tensor, feature: Tensor) -> Tensor:
    """Return hidden states [batch, n, D] with a feature [M, D] added to the remaining visual tokens.

    A token that represents others gets the feature of the one that it replaces; an added token gets none.

    Args:
        hidden: the segment's hidden states.
        segment: the layer's segment.
        places: [batch, N]; see `Prompt.visual_places`.
    """
    there = places.gather(1, segment.columns.clamp(min=0)).masked_fill(segment.columns < 0, -1)
    rows, columns = (there >= 0).nonzero(as_tuple=True)
    chosen = there[rows, columns].to(feature.device)
    rows, columns = rows.to(hidden.device), columns.to(hidden.device)
    # A copy, because a part may hold the layer's output.
    hidden = hidden.clone()
    hidden[rows, columns] = hidden[rows, columns] + feature[chosen].to(hidden)
    return hidden


def check_next_tokens(state: LayerState, is_visual: Tensor, asked: NextTokens) -> None:
    """Check a part's choice.

    Args:
        state: the state that the part saw.
        is_visual: [tokens], bool, on the CPU.
        asked: the choice, with `source` on the CPU.

    Raises:
        RuntimeError: it drops or reorders text, or its number of new tokens doesn't match their slots.
        FloatingPointError: its new tokens are not finite.
    """
    is_new = asked.source < 0
    kept = asked.source[~is_new]
    stays = torch.zeros_like(is_visual)
    stays[kept] = True
    if bool((~stays & ~is_visual).any()) or bool((kept.diff() <= 0).any()):
        raise RuntimeError(f"a part dropped text of {state.key}, or reordered its tokens, before layer {state.layer}")
    expected, made = int(is_new.sum()), 0 if asked.new is None else len(asked.new)
    if made != expected:
        raise RuntimeError(
            f"a part reserved {expected} slots for {state.key} before layer {state.layer} but returned {made} new "
            "tokens"
        )
    if asked.new is not None:
        state.check_finite("new tokens' vectors", asked.new)
