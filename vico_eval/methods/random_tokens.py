"""Random tokens: a random share of each tile's visual tokens enters the decoder.

Place:   selection.
Source:  none; the control that every way of choosing tokens has to beat.
Differs: drawn from the seed and the document's key alone, so that a document keeps the same tokens in every run. Each
         tile (an image, where a family has no tiles) keeps the same share, rounded to whole tokens, at least one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vico_eval.methods.interface import ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.budgets import BudgetedSelection, KeepRatio
from vico_eval.methods.shared.groups import highest_scores, select_in_groups
from vico_eval.methods.shared.ranking import random_scores
from vico_eval.runs.costs import ChoiceCosts


@dataclass(frozen=True, kw_only=True)
class RandomTokensConfig(KeepRatio):
    """How many tokens, and which draw."""

    seed: int = 0
    """The tokens depend on this and on the document's key alone."""


class RandomTokens(BudgetedSelection):
    """Keeps a random subset of every tile's tokens."""

    Config = RandomTokensConfig
    config: RandomTokensConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None: a draw is no product."""
        return ()

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """A draw for each request."""
        drawn = [self._draw(visual) for visual in requests]
        return select_in_groups(
            requests, self.config, lambda groups: highest_scores(groups.stack(drawn), groups.num_keep)
        )

    def _draw(self, visual: VisualTokens) -> Tensor:
        """[n]."""
        return random_scores(f"{self.config.seed}/{visual.key}", len(visual.tokens))
