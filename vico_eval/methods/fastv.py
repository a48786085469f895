"""FastV: after an early layer, keep only the visual tokens to which the prompt's last token attends most.

Place:   decoder, once.
Source:  Chen et al., ECCV 2024 (arXiv 2403.06764); score, order and positions follow the released code that prunes once
         and keeps a cache (its code for Hugging Face's LLaVA).
Differs: the released code computes a layer's whole attention matrix; here, one row is computed from queries and keys.
         All visual tokens of a request are ranked together, whatever tile or image they are from. The paper's R is the
         share that leaves, so keep_ratio = 1 - R; its K is `layer`. Averaged over L layers, K of them with all visual
         tokens, the share (K + (L - K) * keep_ratio) / L is processed. `target_ratio` sets keep_ratio through this
         average, and `ratio_from` sets the target to the share that an earlier run measured on the document's
         benchmark.
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
    """Where tokens leave, how many stay, and how they are chosen."""

    keep_ratio: float | None = None
    """Share of a request's visual tokens that stays, in (0, 1]; 1 - R in the paper. 0.5 unless target_ratio is
    given."""

    selection: str = "attention"
    """attention, or random: a control that measures the value of the choice."""

    seed: int = 0
    """Seed of the random selection, which depends on it and on the document's key alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise ConfigError(f"fastv got layer={self.layer}; expected at least 1, because a layer must rank tokens.")
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
        """Require more than K layers, and a target that can be reached."""
        self.config.check_cut("fastv", facts)

    def keep_ratio(self, key: str, num_layers: int) -> float:
        """Share of a document's visual tokens that stays, as given or as solved for the target."""
        target = self.config.target_of(key)
        if target is not None:
            return self.config.share_behind(target, num_layers)
        return DEFAULT_KEEP_RATIO if self.config.keep_ratio is None else self.config.keep_ratio

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The first layer with fewer tokens; the attention of the layer before it ranks them."""
        return {self.config.layer}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """The last token's query, 2 D A, and its logits with all n tokens, 2 A n; nothing for a random draw."""
        if self.config.selection == "random":
            return ()
        query, logits = 2 * widths.model * widths.queries, 2 * widths.queries
        return (ChoiceCosts(layer=self.config.layer, once=query, token=logits),)

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, and the highest-scoring visual tokens."""
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
