"""VisPruner: the visual tokens that the encoder attends to most, and the least alike of the others, enter the decoder.

Place:   selection.
Needs:   attention of the vision encoder.
Source:  Zhang et al., ICCV 2025 (arXiv 2412.01818); steps, lists and orders as in the released code. `important_ratio`
         of the tokens that stay are those of the highest attention. The others stand in a list by falling attention,
         and round by round its tokens at even places are compared with those at odd places: up to eight of the first
         that are most like one of the second leave, and the list is put together anew.
Differs: features are the visual tokens behind the connector (released: the encoder's, before it; the authors' answer
         for other models is ours), tile by tile; scores are pooled over the patches of a visual token. A list of odd
         length, where the released code fails, has one token more at even places; where fewer are left at even places
         than are to go, all of them go. Two nearly equal cosines that swap change every later round: half of the
         diverse tokens can differ between two kernels, so a difference of a point means nothing without several runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.cosines import cosines
from vico_eval.methods.shared.encoder_scores import EncoderScores, ScoredSelection
from vico_eval.methods.shared.groups import Groups, select_in_groups
from vico_eval.runs.costs import ChoiceCosts

MOST_A_ROUND = 8
"""Tokens that leave in a round of the released code."""


@dataclass(frozen=True, kw_only=True)
class VisPrunerConfig(EncoderScores):
    """How many tokens, whose attention, and how many stay for their attention."""

    important_ratio: float = 0.5
    """Share of the tokens that stay which are those of the highest attention, in [0, 1], rounded down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important_ratio <= 1:
            raise ConfigError(f"vispruner got important_ratio={self.important_ratio}; expected a share in [0, 1].")


class VisPruner(ScoredSelection):
    """Keeps important tokens and diverse ones."""

    Config = VisPrunerConfig
    config: VisPrunerConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """The cosines of n tokens, 2 D n^2, computed once for all rounds."""
        return (ChoiceCosts(pair=2 * widths.model),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The important and the diverse tokens of every tile."""
        return select_in_groups(requests, self.config, self._choose)

    def _choose(self, groups: Groups) -> Tensor:
        num_important = int(groups.num_keep * self.config.important_ratio)
        important, rest = by_attention(groups.scores, num_important)
        return torch.cat([important, thinned(cosines(groups.tokens), rest, groups.num_keep - num_important)], dim=1)


def by_attention(scores: Tensor, num_important: int) -> tuple[Tensor, Tensor]:
    """Places of the highest scores [groups, num_important] and of the others, both by falling score [groups, n]."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    return order[:, :num_important], order[:, num_important:]


def thinned(similarity: Tensor, rest: Tensor, num_diverse: int) -> Tensor:
    """What is left of a list once the tokens most like others of it have gone.

    Args:
        similarity: [groups, n, n].
        rest: [groups, r], places.
        num_diverse: 0..r.

    Returns:
        [groups, num_diverse], places, in the order of the last list.
    """
    if num_diverse == 0:
        return rest[:, :0]
    while rest.shape[1] > num_diverse:
        even, odd = rest[:, 0::2], rest[:, 1::2]
        nearest = even_to_odd(similarity, even, odd)
        num_leaving = min(MOST_A_ROUND, rest.shape[1] - num_diverse, even.shape[1])
        order = nearest.sort(dim=1, descending=True, stable=True).indices
        rest = torch.cat([even.gather(1, order)[:, num_leaving:], odd], dim=1)
    return rest


def even_to_odd(similarity: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """The largest similarity [groups, even] of each token at an even place to those at odd places."""
    rows = similarity.gather(1, even[..., None].expand(-1, -1, similarity.shape[2]))
    return rows.gather(2, odd[:, None].expand(-1, even.shape[1], -1)).max(dim=2).values
