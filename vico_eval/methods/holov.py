"""HoloV: each chunk of a tile has a token quota by its mean attention and keeps its most attended visual tokens.

Place:   selection.
Needs:   attention of the vision encoder.
Source:  HoloV (arXiv 2510.02912, NeurIPS 2025); scores, weights, quotas and choice follow the released code. What that
         code calls the holistic score cancels out: the variance of cosines within a chunk multiplies every chunk's mean
         score by the same 1.09, so quotas depend on mean attention alone. This is kept as released.
Differs: works per tile. The 16 chunks (`num_chunks`) are the rows of a tile of 256 tokens and half rows of a tile of 64
         (columns for early checkpoints, whose pixel shuffle v1 orders tokens column by column). `chunks=squares` makes
         them squares of a grid, as the paper describes; the released code splits the flattened list. Kept tokens are in
         the order of the prompt (released: by falling attention within a chunk). If a chunk is granted more tokens than
         it holds, the released code pads with zero vectors; here, the other chunks take one more each, by falling
         weight, until the budget is spent.
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
    """Token budget, source of attention, and the chunks that have a quota."""

    num_chunks: int = 16
    """Number of chunks per tile; a tile of fewer tokens has at most one chunk per token."""

    chunks: str = "rows"
    """rows: consecutive flattened tokens; squares: squares of the tile's grid, which need a square num_chunks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_chunks < 1:
            raise ConfigError(f"holov got num_chunks={self.num_chunks}; expected at least 1.")
        if self.chunks not in CHUNKS:
            raise ConfigError(f"holov got chunks={self.chunks!r}; expected {' or '.join(CHUNKS)}.")
        if self.chunks == "squares" and isqrt(self.num_chunks) ** 2 != self.num_chunks:
            raise ConfigError(f"holov got num_chunks={self.num_chunks} squares; expected a square number, such as 16.")


class HoloV(ScoredSelection):
    """Keeps the most attended tokens of every chunk, up to its quota."""

    Config = HoloVConfig
    config: HoloVConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """Cosines of n tokens, 2 D n^2, and three sums over the chunks, 2 n chunks each."""
        return (ChoiceCosts(pair=2 * widths.model, token=6 * self.config.num_chunks),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The tokens that fill the quotas of every tile."""
        return select_on_host(requests, self.config, self._weigh, _choose)

    def _weigh(self, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
        """Score and chunk of each token, and weight of each chunk."""
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
    """Chunk of each token, [n], int64: chunks of equal size, the first ones a token longer if n is not a multiple."""
    base, longer = divmod(num_tokens, num_chunks)
    sizes = torch.full((num_chunks,), base)
    sizes[:longer] += 1
    return torch.arange(num_chunks).repeat_interleave(sizes)


def squares(grid_yx: Tensor, side: int) -> Tensor:
    """Square of each token, [groups, n], int64, among side x side squares of the group, by the tokens' places."""
    low = grid_yx.amin(dim=1, keepdim=True)
    # From 0 to just below 1, so that the last row falls into the last square.
    place = (grid_yx - low) / (grid_yx.amax(dim=1, keepdim=True) - low + 1)
    row, column = (place * side).long().clamp(max=side - 1).unbind(dim=2)
    return row * side + column


class ChunkScores(NamedTuple):
    """What the released code computes for each chunk and token."""

    variance: Tensor
    """[groups, n]: variance of a token's cosines with the others of its chunk, its own counted as 0."""

    of_tokens: Tensor
    """[groups, n]: attention combined with the variance; attention alone in a chunk of one token."""

    of_chunks: Tensor
    """[groups, chunks]: mean over the chunk's tokens."""

    weights: Tensor
    """[groups, chunks]: share of the budget."""


def chunk_scores(tokens: Tensor, scores: Tensor, chunk: Tensor, num_chunks: int) -> ChunkScores:
    """Scores of tokens and chunks, as released.

    Args:
        tokens: [groups, n, D].
        scores: [groups, n], attention.
        chunk: [groups, n], the chunk of each token.
        num_chunks: number of chunks; one without tokens scores 0.
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
    """Tokens granted to each chunk, [groups, chunks], int64, whatever its size, by the released rule.

    Each chunk gets its share of the budget rounded down. Those with the largest weights get one more until it is spent.
    """
    whole = (weights * num_keep).floor().long()
    left = num_keep - whole.sum(dim=1, keepdim=True)
    rank = weights.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
    return whole + (rank < left)


def quotas(weights: Tensor, sizes: Tensor, num_keep: int) -> Tensor:
    """Tokens that each chunk keeps, [groups, chunks], int64: `num_keep` in total, none more than it holds.

    Args:
        weights: [groups, chunks], on the CPU.
        sizes: [groups, chunks], int64, tokens in each chunk; on the CPU.
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
    """Places [groups, k] of the highest-scoring tokens of every chunk, as many as its quota [groups, chunks]."""
    by_score = scores.sort(dim=1, descending=True, stable=True).indices
    # Stable: tokens of one chunk stay in the order of their scores.
    order = by_score.gather(1, chunk.gather(1, by_score).sort(dim=1, stable=True).indices)
    ordered = chunk.gather(1, order)
    sizes = torch.nn.functional.one_hot(chunk, quota.shape[1]).sum(dim=1)
    first = sizes.cumsum(dim=1) - sizes
    rank = torch.arange(chunk.shape[1], device=chunk.device) - first.gather(1, ordered)
    return order[rank < quota.gather(1, ordered)].view(len(chunk), -1)
