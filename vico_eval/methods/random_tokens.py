"""Random tokens: keep a random share of each tile's visual tokens.

Place:   selection.
Source:  none; a control that every method of selecting tokens has to beat.
Differs: the draw depends on the seed and the document's key alone, so a document keeps the same tokens in every run.
         Each tile (each image, in families without tiles) keeps the same share, rounded to whole tokens, and at least
         one.
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
    """Token budget and seed."""

    seed: int = 0
    """Seed of the draw, which depends on it and on the document's key alone."""


class RandomTokens(BudgetedSelection):
    """Keeps a random subset of every tile's tokens."""

    Config = RandomTokensConfig
    config: RandomTokensConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None: a draw needs no matrix products."""
        return ()

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """A random draw for each request."""
        drawn = [self._draw(visual) for visual in requests]
        return select_in_groups(
            requests, self.config, lambda groups: highest_scores(groups.stack(drawn), groups.num_keep)
        )

    def _draw(self, visual: VisualTokens) -> Tensor:
        """Random scores, [n]."""
        return random_scores(f"{self.config.seed}/{visual.key}", len(visual.tokens))
