"""VisPruner: keep the visual tokens to which the encoder attends most, and the most diverse of the others.

Place:   selection.
Needs:   attention of the vision encoder.
Source:  Zhang et al., ICCV 2025 (arXiv 2412.01818); steps, lists and orders follow the released code. `important_ratio`
         of the tokens that stay have the highest attention. The others form a list by falling attention, which is
         thinned round by round: tokens at even places are compared with those at odd places, up to eight of the even
         ones that are most similar to an odd one leave, and the list is rebuilt.
Differs: works per tile. Features are the visual tokens after the connector (released: the encoder's, before it; for
         Qwen, the authors also advise those after it, VisPruner#1). Scores are pooled over the patches of a visual
         token. A list of odd length, on which the released code fails, has one more token at even places. If fewer
         tokens are at even places than should leave, all of them leave. Two nearly equal cosines that swap change every
         later round: half of the diverse tokens can differ between two kernels, so a difference of one point means
         nothing without several runs.
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
"""Number of tokens that leave per round in the released code."""


@dataclass(frozen=True, kw_only=True)
class VisPrunerConfig(EncoderScores):
    """Token budget, source of attention, and the share kept for its attention."""

    important_ratio: float = 0.5
    """Share of the tokens that stay which are chosen by attention, in [0, 1], rounded down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important_ratio <= 1:
            raise ConfigError(f"vispruner got important_ratio={self.important_ratio}; expected a share in [0, 1].")


class VisPruner(ScoredSelection):
    """Keeps important tokens and diverse ones."""

    Config = VisPrunerConfig
    config: VisPrunerConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """Cosines of n tokens, 2 D n^2, computed once for all rounds."""
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
    """The rest of a list after the tokens most similar to others in it have left.

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
    """Largest similarity [groups, even] of each token at an even place to those at odd places."""
    rows = similarity.gather(1, even[..., None].expand(-1, -1, similarity.shape[2]))
    return rows.gather(2, odd[:, None].expand(-1, even.shape[1], -1)).max(dim=2).values
