"""HoloV: each stretch of a tile's visual tokens has a quota by its attention, filled with its most attended tokens.

Place:   selection.
Needs:   attention of the vision encoder.
Source:  HoloV (arXiv 2510.02912, NeurIPS 2025); scores, weights, quotas and choice as in the released code. What that
         code calls a holistic score cancels: the variance of cosines within a stretch multiplies the mean score of each
         stretch by the same 1.09, so quotas are by mean attention alone. It is kept as released.
Differs: per tile; `num_chunks=16` stretches are the rows of a tile of 256 tokens, half rows of one of 64 (columns where
         early checkpoints' pixel shuffle, v1, has tokens stand column by column). `chunks=squares` makes them squares
         of a grid, as the paper describes; the released code cuts the flattened list. The result is in the order of the
         prompt (released: by falling attention within a stretch). Where a stretch is granted more than it holds, the
         released code fills up with vectors of zeros: here the others take one more each, by falling weight, until all
         have found a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.encoder_scores import EncoderScores, ScoredSelection
from vico_eval.methods.shared.groups import Groups, select_on_host
from vico_eval.runs.costs import ChoiceCosts

CHUNKS = ("rows", "squares")
SCALE = 1000.0
ALPHA = 0.09
EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class HoloVConfig(EncoderScores):
    """How many tokens, whose attention, and what has a quota."""

    num_chunks: int = 16
    """Stretches of a tile; of a tile of few tokens, no more than it has."""

    chunks: str = "rows"
    """rows: of the flattened tokens; squares: of the tile's grid, num_chunks being a square number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_chunks < 1:
            raise ConfigError(f"holov got num_chunks={self.num_chunks}; expected at least 1.")
        if self.chunks not in CHUNKS:
            raise ConfigError(f"holov got chunks={self.chunks!r}; expected {' or '.join(CHUNKS)}.")
        if self.chunks == "squares" and isqrt(self.num_chunks) ** 2 != self.num_chunks:
            raise ConfigError(f"holov got num_chunks={self.num_chunks} squares; expected a square number, such as 16.")


class HoloV(ScoredSelection):
    """Keeps the most attended tokens of every stretch, as many as its quota."""

    Config = HoloVConfig
    config: HoloVConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """The cosines of n tokens, 2 D n^2, and three sums over the stretches, 2 n chunks each."""
        return (ChoiceCosts(pair=2 * widths.model, token=6 * self.config.num_chunks),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The quotas of every tile, filled."""
        return select_on_host(requests, self.config, self._weigh, _choose)

    def _weigh(self, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
        """Of each token its score and its stretch, of each stretch its weight."""
        scores, num_chunks = groups.scores, self.config.num_chunks
        if self.config.chunks == "squares":
            chunk = squares(groups.grid_yx, isqrt(num_chunks))
        else:
            chunk = stretches(scores.shape[1], num_chunks).expand(len(scores), -1).to(scores.device)
        return scores, chunk, chunk_scores(groups.tokens, scores, chunk, num_chunks).weights


def _choose(scores: Tensor, chunk: Tensor, weights: Tensor, num_keep: int) -> Tensor:
    sizes = torch.nn.functional.one_hot(chunk, weights.shape[1]).sum(dim=1)
    return filled(scores, chunk, quotas(weights, sizes, num_keep))


def stretches(num_tokens: int, num_chunks: int) -> Tensor:
    """The stretch of each token, [n], int64: equal ones, the first of them one longer where it doesn't come out."""
    base, longer = divmod(num_tokens, num_chunks)
    sizes = torch.full((num_chunks,), base)
    sizes[:longer] += 1
    return torch.arange(num_chunks).repeat_interleave(sizes)


def squares(grid_yx: Tensor, side: int) -> Tensor:
    """The square of each token, [groups, n], int64: of side x side over the group, by the tokens' places."""
    low = grid_yx.amin(dim=1, keepdim=True)
    # From 0 to just below 1: a last row belongs to the last square.
    place = (grid_yx - low) / (grid_yx.amax(dim=1, keepdim=True) - low + 1)
    row, column = (place * side).long().clamp(max=side - 1).unbind(dim=2)
    return row * side + column


class ChunkScores(NamedTuple):
    """What the released code computes of each stretch and token."""

    variance: Tensor
    """[groups, n]: of a token's cosines with the others of its stretch, its own counted as 0."""

    of_tokens: Tensor
    """[groups, n]: attention with the variance; bare attention where a stretch is one token."""

    of_chunks: Tensor
    """[groups, chunks]: mean over its tokens."""

    weights: Tensor
    """[groups, chunks]: share of the budget."""


def chunk_scores(tokens: Tensor, scores: Tensor, chunk: Tensor, num_chunks: int) -> ChunkScores:
    """Scores of stretches, as released.

    Args:
        tokens: [groups, n, D].
        scores: [groups, n], attention.
        chunk: [groups, n], the stretch of each token.
        num_chunks: stretches; one without tokens scores 0.
    """
    tokens = tokens.float()
    units = tokens / (tokens.norm(dim=-1, keepdim=True) + EPSILON)
    member = torch.nn.functional.one_hot(chunk, num_chunks).float()  # [groups, n, chunks]
    sizes = member.sum(dim=1)
    size = sizes.gather(1, chunk)
    others = (size - 1).clamp(min=1)
    same = chunk[:, :, None] == chunk[:, None, :]
    diagonal = torch.eye(chunk.shape[1], dtype=torch.bool, device=chunk.device)
    similarity = (units @ units.transpose(1, 2)).masked_fill(~same | diagonal, 0.0)
    mean = similarity.sum(dim=2) / others
    variance = ((similarity - mean[:, :, None]).square() * same).sum(dim=2) / others

    def mean_of_chunk(values: Tensor) -> Tensor:
        return (values[:, None] @ member)[:, 0] / sizes.clamp(min=1)  # [groups, chunks]

    scaled = SCALE * scores
    balance = mean_of_chunk(scaled) / (mean_of_chunk(variance) + EPSILON)
    of_tokens = torch.where(size > 1, scaled + ALPHA * variance * balance.gather(1, chunk), scores)
    of_chunks = mean_of_chunk(of_tokens)
    return ChunkScores(variance, of_tokens, of_chunks, of_chunks / (of_chunks.sum(dim=1, keepdim=True) + EPSILON))


def granted(weights: Tensor, num_keep: int) -> Tensor:
    """Tokens that each stretch is granted, [groups, chunks], int64, whatever it holds; released rule.

    The whole tokens of its share, and one more for those of the largest weights, until the budget is spent.
    """
    whole = (weights * num_keep).floor().long()
    left = num_keep - whole.sum(dim=1, keepdim=True)
    rank = weights.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
    return whole + (rank < left)


def quotas(weights: Tensor, sizes: Tensor, num_keep: int) -> Tensor:
    """Tokens that each stretch keeps, [groups, chunks], int64, `num_keep` in all: no more than it holds.

    Args:
        weights: [groups, chunks], on the CPU.
        sizes: [groups, chunks], int64, tokens of each stretch; on the CPU.
        num_keep: 1..tokens of a group.
    """
    kept = granted(weights, num_keep).minimum(sizes).numpy()
    falling = weights.sort(dim=1, descending=True, stable=True).indices.numpy()
    room = sizes.numpy() - kept
    for group, order in enumerate(falling):
        while missing := num_keep - int(kept[group].sum()):
            takers = order[room[group, order] > 0][:missing]
            kept[group, takers] += 1
            room[group, takers] -= 1
    return torch.from_numpy(np.asarray(kept))


def filled(scores: Tensor, chunk: Tensor, quota: Tensor) -> Tensor:
    """Places [groups, k] of the highest scores of every stretch, as many as its quota [groups, chunks]."""
    by_score = scores.sort(dim=1, descending=True, stable=True).indices
    # Stable: within a stretch the order by score stays.
    order = by_score.gather(1, chunk.gather(1, by_score).sort(dim=1, stable=True).indices)
    ordered = chunk.gather(1, order)
    sizes = torch.nn.functional.one_hot(chunk, quota.shape[1]).sum(dim=1)
    first = sizes.cumsum(dim=1) - sizes
    rank = torch.arange(chunk.shape[1], device=chunk.device) - first.gather(1, ordered)
    return order[rank < quota.gather(1, ordered)].view(len(chunk), -1)
