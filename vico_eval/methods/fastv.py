"""FastV: from an early layer on, only the visual tokens that the prompt's last token attends to go on.

Place:   decoder, once.
Source:  Chen et al., ECCV 2024 (arXiv 2403.06764); score, order and positions as in the released code that prunes once
         and keeps a cache (its code for Hugging Face's LLaVA).
Differs: the released code asks a layer for its whole attention matrix; here one row is computed from queries and keys.
         All visual tokens of a request are ranked together, whatever tile or image they are from. The paper's R is the
         share that leaves: keep_ratio = 1 - R, and K is `layer`. On average over L layers, K of them with all visual
         tokens, the share (K + (L - K) * keep_ratio) / L is worked on; target_ratio= sets keep_ratio by that, and
         ratio_from= by what an earlier run measured on the document's benchmark.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import DecoderPart, LayerState, ModelFacts, NextTokens, Widths
from vico_eval.methods.shared.ranking import highest, random_scores
from vico_eval.methods.shared.single_cut import SingleCut
from vico_eval.runs.costs import ChoiceCosts

SELECTIONS = ("attention", "random")
DEFAULT_KEEP_RATIO = 0.5


@dataclass(frozen=True, kw_only=True)
class FastVConfig(SingleCut):
    """Where tokens leave, how many, and which."""

    keep_ratio: float | None = None
    """Share of a request's visual tokens that stays, in (0, 1]: 1 - R of the paper. 0.5 without target_ratio."""

    selection: str = "attention"
    """attention, or random: the control that shows what the choice is worth."""

    seed: int = 0
    """Of the random selection, which depends on it and on the document's key alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise ConfigError(f"fastv got layer={self.layer}; expected at least 1: one layer has to rank the tokens.")
        self.refuse_beside_target("fastv", "keep_ratio")
        if self.keep_ratio is not None and not 0 < self.keep_ratio <= 1:
            raise ConfigError(
                f"fastv got keep_ratio={self.keep_ratio}; expected the share of visual tokens that stays, in (0, 1]. "
                "For the paper's R, pass 1 - R."
            )
        if self.selection not in SELECTIONS:
            raise ConfigError(f"fastv got selection={self.selection!r}; expected {' or '.join(SELECTIONS)}.")


class FastV(DecoderPart):
    """Ranks visual tokens once, by the attention of the prompt's last token."""

    Config = FastVConfig
    config: FastVConfig

    def check(self, facts: ModelFacts) -> None:
        """Needs more layers than K, and a reachable target."""
        self.config.check_cut("fastv", facts)

    def keep_ratio(self, key: str, num_layers: int) -> float:
        """Share of a document's visual tokens that stays, given or solved."""
        target = self.config.target_of(key)
        if target is not None:
            return self.config.share_behind(target, num_layers)
        return DEFAULT_KEEP_RATIO if self.config.keep_ratio is None else self.config.keep_ratio

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The first layer that works on less: the attention of the one before ranks."""
        return {self.config.layer}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """The last token's query, 2 D A, and its logits with all n tokens, 2 A n; a draw is no product."""
        if self.config.selection == "random":
            return ()
        query, logits = 2 * widths.model * widths.queries, 2 * widths.queries
        return (ChoiceCosts(layer=self.config.layer, once=query, token=logits),)

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, and the visual tokens of the highest scores."""
        num_visual = int(state.is_visual.sum())
        num_keep = round(num_visual * self.keep_ratio(state.key, state.num_layers))
        if num_keep == num_visual:
            return None
        if self.config.selection == "random":
            scores = random_scores(f"{self.config.seed}/{state.key}", len(state.is_visual)).to(state.hidden.device)
        else:
            last = torch.tensor([len(state.is_visual) - 1], device=state.hidden.device)
            scores = state.attention(last)[:, 0].mean(dim=0)
        return NextTokens(highest(scores, state.is_visual, num_keep))
