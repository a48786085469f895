"""PyramidDrop: at several depths, keep the visual tokens to which the prompt's last token attends most.

Place:   decoder, before layers 8, 16 and 24 of 32; before the same quarters of another depth.
Source:  PyramidDrop (arXiv 2410.17247, CVPR 2025) and its released code. At each cut, the coming layer scores tokens
         with its own norm and projections at their present positions, `int(n * share)` of the n visual tokens at the
         input stay, and all tokens are renumbered.
Differs: all visual tokens of a request are ranked together, whatever tile, image or frame they are from; the released
         code handles one span per prompt. At every cut, it also truncates prompts to the tokenizer's maximum length,
         which removes the question; this is not done here. `target_ratio` is ours: the average over all decoder layers
         of the visual tokens a layer processes, as a share of those at the input. The shares are then x, x^2, x^3, with
         x solved for the request's number of tokens; the released code has x = 0.5. The released code does not handle
         M-RoPE, where every token gets its new number on all three axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import DecoderPart, LayerState, ModelFacts, NextTokens, Widths
from vico_eval.methods.shared.earlier_run import TargetRatio
from vico_eval.methods.shared.joined_numbers import is_rising, joined_numbers, rising_layers
from vico_eval.methods.shared.ranking import highest
from vico_eval.runs.costs import ChoiceCosts

CUTS = 3
"""Number of cuts in the released code, at equal distances."""

FACTOR = 0.5
"""Share of the previous cut's tokens that each cut keeps in the released code."""


@dataclass(frozen=True, kw_only=True)
class PyramidDropConfig(TargetRatio):
    """Where tokens leave, and how many stay."""

    layers: str | int | None = None
    """Layers before which tokens leave, counted from 0, as in 8/16/24; by default the quarters of the decoder."""

    shares: str | float | None = None
    """Share of all visual tokens that stays at each cut, as in 0.5/0.25/0.125; by default half of the previous
    share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = rising_layers("pyramiddrop", "layers", self.layers)
        shares = joined_numbers("pyramiddrop", "shares", self.shares)
        if layers is not None and layers[0] == 0:
            raise ConfigError(
                f"pyramiddrop got layers={self.layers!r}; expected layers from 1 on, because before layer 0 no token "
                "has seen the question."
            )
        if shares is None:
            return
        self.refuse_beside_target("pyramiddrop", "shares")
        if max(shares) > 1 or any(later > earlier for earlier, later in pairwise(shares)):
            raise ConfigError(
                f"pyramiddrop got shares={self.shares!r}; expected shares of all visual tokens in [0, 1] that don't "
                "rise, because removed tokens can't return."
            )
        expected = CUTS if layers is None else len(layers)
        if len(shares) != expected:
            raise ConfigError(
                f"pyramiddrop got {len(shares)} shares for {expected} layers; expected one per layer. Pass layers= and "
                "shares= together."
            )

    def cuts(self, num_layers: int) -> tuple[int, ...]:
        """The layers before which tokens leave, ascending."""
        given = rising_layers("pyramiddrop", "layers", self.layers)
        return given or tuple(round(num_layers * cut / (CUTS + 1)) for cut in range(1, CUTS + 1))


class PyramidDrop(DecoderPart):
    """Ranks visual tokens several times, by the attention of the prompt's last token in the coming layer."""

    Config = PyramidDropConfig
    config: PyramidDropConfig
    renumbers = True

    def check(self, facts: ModelFacts) -> None:
        """Require cuts inside the decoder, and a target that can be reached."""
        cuts, num_layers = self.config.cuts(facts.num_layers), facts.num_layers
        if cuts[0] < 1 or cuts[-1] >= num_layers or not is_rising(cuts):
            raise ConfigError(
                f"pyramiddrop cuts before layers {'/'.join(map(str, cuts))}, but the decoder of "
                f"{facts.checkpoint!r} has {num_layers} layers; expected distinct layers from 1 to {num_layers - 1}. "
                "Pass layers=."
            )
        for name, target in self.config.targets().items():
            if target < cuts[0] / num_layers:
                raise ConfigError(
                    f"pyramiddrop can't reach {name}: {cuts[0]} of {num_layers} layers process all visual tokens, so "
                    f"the average is at least {cuts[0] / num_layers:.3f}. Expected at least that, or earlier layers=."
                )

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers before which tokens leave."""
        return {*self.config.cuts(num_layers)}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """At each cut, keys of the coming layer, 2 D K n, the last token's query, 2 D A, and its logits, 2 A n."""
        query, token = 2 * widths.model * widths.queries, 2 * widths.model * widths.keys + 2 * widths.queries
        return tuple(ChoiceCosts(layer=cut, once=query, token=token) for cut in self.config.cuts(facts.num_layers))

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, and the highest-scoring visual tokens."""
        cuts = self.config.cuts(state.num_layers)
        counts = self.counts(state.key, state.visual_tokens[0], state.num_layers)
        num_keep = counts[cuts.index(state.layer)]
        if num_keep == state.visual_tokens[-1]:
            return None
        last = torch.tensor([len(state.is_visual) - 1], device=state.hidden.device)
        scores = state.next_attention(last)[:, 0].mean(dim=0)
        return NextTokens(highest(scores, state.is_visual, num_keep))

    def counts(self, key: str, num_visual: int, num_layers: int) -> tuple[int, ...]:
        """Number of a document's visual tokens that stay at each cut."""
        cuts = self.config.cuts(num_layers)
        target = self.config.target_of(key)
        if target is not None:
            return counts_for_target(target, num_visual, cuts, num_layers)
        shares = joined_numbers("pyramiddrop", "shares", self.config.shares)
        return kept_counts(num_visual, shares or powers(FACTOR, len(cuts)))


def powers(factor: float, cuts: int) -> tuple[float, ...]:
    """Share that stays at each cut if every cut keeps `factor` of the previous cut's tokens."""
    return tuple(factor**cut for cut in range(1, cuts + 1))


def kept_counts(num_visual: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Tokens that stay at each cut: shares of those at the input, in double precision, rounded down as released."""
    return tuple(int(num_visual * share) for share in shares)


def layer_tokens(num_visual: int, counts: Sequence[int], cuts: Sequence[int], num_layers: int) -> int:
    """Visual tokens that enter a layer, summed over all layers."""
    ends = [*cuts[1:], num_layers]
    return num_visual * cuts[0] + sum(
        count * (end - start) for count, start, end in zip(counts, cuts, ends, strict=True)
    )


@cache
def counts_for_target(target: float, num_visual: int, cuts: tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """Tokens that stay at each cut so that the average over layers is nearest to the target.

    Args:
        target: share of `num_visual`, from cuts[0] / num_layers to 1.
        num_visual: visual tokens at the input.
        cuts: layers before which tokens leave, ascending.
        num_layers: layers of the decoder.
    """

    def counts(factor: float) -> tuple[int, ...]:
        return kept_counts(num_visual, powers(factor, len(cuts)))

    wanted = target * num_visual * num_layers
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if layer_tokens(num_visual, counts(middle), cuts, num_layers) < wanted:
            low = middle
        else:
            high = middle
    # Counts are integers, so one of the two neighbours is nearest.
    neighbours = (counts(low), counts(high))
    return min(neighbours, key=lambda kept: abs(layer_tokens(num_visual, kept, cuts, num_layers) - wanted))
