"""FitPrune: in layer after layer, those visual tokens leave that the others and the question attend to least.

Place:   decoder, behind as many layers as its recipe says, in most from the first on.
Needs:   a recipe for the model (recipe=), which `vico-eval fit-recipe` finds.
Source:  FitPrune (arXiv 2409.10197, AAAI 2025) and its released code: how many tokens leave in which layer is a
         recipe, searched once for a model and a budget. Which ones: those with the lowest product of the attention from
         visual rows (their mean) and from the text behind the image (its sum), each row the maximum over heads of the
         layer's own weights. Positions are kept.
Differs: the released recipes are LLaVA's (`recipe=llava`, `llava_next`), and taken to another model they are no longer
         FitPrune's: their numbers are scaled to a request's visual tokens, and to another depth by its share. Tokens
         leave behind their layer, where the release takes them out inside; what remains sees no difference. All visual
         tokens of a request are ranked together, and the rows of text are those behind the last of them; without any,
         visual rows decide alone. The attention is looked at in blocks of rows, about as much work as the layer's own.
         target_ratio= is ours: the wanted average over all decoder layers of the visual tokens that a layer works on,
         as a share of those at the input, by a mixture of the two recipes nearest to it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import DecoderPart, LayerState, ModelFacts, NextTokens, Widths
from vico_eval.methods.shared.earlier_run import TargetRatio
from vico_eval.methods.shared.fitprune_recipes import RELEASED, Curve, Recipes, at_depth, mixture, read_recipes, rounded
from vico_eval.runs.costs import ChoiceCosts

DEFAULT_REDUCTION = 0.6
RELEASED_REMARKS = {"llava": "LLaVA's recipe, scaled", "llava_next": "LLaVA-NeXT's recipe, scaled"}
ROWS = 32  # of attention in memory at once: 64 MiB for 32 heads and 16,000 tokens


@dataclass(frozen=True, kw_only=True)
class FitPruneConfig(TargetRatio):
    """How many tokens leave in which layer."""

    recipe: str | None = None
    """A file of recipes that were searched for the model, FILE.json; or llava or llava_next, released ones, scaled."""

    reduction: float | None = None
    """Which of the recipes: the share of the operations on visual tokens that it saves; 0.6 without target_ratio."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction is not None and self.has_target:
            raise ConfigError("fitprune takes reduction or target_ratio, not both: each chooses among recipes.")
        if self.recipe is not None and self.recipe not in RELEASED and not self.recipe.endswith(".json"):
            raise ConfigError(
                f"fitprune got recipe={self.recipe!r}; expected a file, FILE.json, or one of {', '.join(RELEASED)}."
            )


class FitPrune(DecoderPart):
    """Ranks visual tokens behind many layers, by all attention that they get there."""

    Config = FitPruneConfig
    config: FitPruneConfig

    @property
    def remark(self) -> str | None:
        """That a recipe is not the model's own."""
        return RELEASED_REMARKS.get(str(self.config.recipe))

    def check(self, facts: ModelFacts) -> None:
        """Needs recipes of the decoder's depth, and a target that can be reached."""
        if self.config.recipe is None:
            raise ConfigError(
                "fitprune needs a recipe: how many tokens leave in which layer, searched for the model. Pass the "
                f"recipe=FILE.json that `vico-eval fit-recipe` finds for {facts.checkpoint!r}, or recipe=llava for the "
                "released one of LLaVA-1.5-7B, scaled to this model, which is not FitPrune's own for it."
            )
        num_layers = facts.num_layers
        depth = len(next(iter(self.recipes.values())).leave)
        if self.config.recipe not in RELEASED and depth != num_layers:
            raise ConfigError(
                f"fitprune got recipe={self.config.recipe}, searched for a decoder of {depth} layers, and that of "
                f"{facts.checkpoint!r} has {num_layers}. Pass one that `vico-eval fit-recipe` has searched for it."
            )
        if not self.config.has_target and self._reduction not in self.recipes:
            raise ConfigError(
                f"fitprune got reduction={self._reduction}; the recipes of {self.config.recipe} are for "
                f"{', '.join(map(str, sorted(self.recipes)))}. For another share of tokens, pass target_ratio=."
            )
        for name, target in self.config.targets().items():
            if target < 1 / num_layers:
                raise ConfigError(
                    f"fitprune can't reach {name}: the first of {num_layers} layers works on all visual tokens, which "
                    f"is {1 / num_layers:.3f} on average already. Expected that to 1."
                )

    @cached_property
    def recipes(self) -> Recipes:
        """Those to choose from, by reduction.

        Raises:
            ConfigError: a file that can't be read or holds no recipes.
        """
        recipe = str(self.config.recipe)
        return RELEASED[recipe] if recipe in RELEASED else read_recipes(Path(recipe)).by_reduction

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """Those behind which tokens leave, for some benchmark."""
        targets = self.config.targets().values()
        curves = [self._mixture(target, num_layers) for target in targets] or [self._curve(num_layers)]
        return {layer for curve in curves for layer in range(1, num_layers) if curve[layer] < curve[layer - 1]}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """In each layer the queries of all rows once more, 2 D A n, and their logits, 2 A n^2.

        Rows of text before the image are counted too, which nobody asks.
        """
        token, pair = 2 * widths.model * widths.queries, 2 * widths.queries
        return tuple(
            ChoiceCosts(layer=layer, token=token, pair=pair) for layer in sorted(self.layers(facts.num_layers))
        )

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, and the visual tokens but those of the lowest scores."""
        counts = self.counts(state.key, state.visual_tokens[0], state.num_layers)
        num_leave = state.visual_tokens[-1] - counts[state.layer]
        if num_leave == 0:
            return None
        visual = state.is_visual.nonzero()[:, 0]
        # Checked once for all rows, not block by block: a NaN in any of them is one in the sums.
        assert state.attention_rows is not None, "acts behind the first layer"
        scores = attention_scores(state.attention_rows, state.is_visual)
        state.check_finite("attention", scores)
        # Stable: of equal scores the earlier token leaves.
        stays = torch.ones_like(state.is_visual)
        stays[visual[scores.sort(stable=True).indices[:num_leave]]] = False
        return NextTokens(stays.nonzero()[:, 0])

    def counts(self, key: str, num_visual: int, num_layers: int) -> tuple[int, ...]:
        """Of a document's visual tokens, those that enter each layer."""
        target = self.config.target_of(key)
        if target is not None:
            return rounded(self._mixture(target, num_layers), num_visual)
        recipe = self.recipes[self._reduction]
        if len(recipe.leave) == num_layers:
            return recipe.counts(num_visual)
        return rounded(self._curve(num_layers), num_visual)

    @property
    def _reduction(self) -> float:
        return DEFAULT_REDUCTION if self.config.reduction is None else self.config.reduction

    def _curve(self, num_layers: int) -> Curve:
        return at_depth(self.recipes[self._reduction].curve, num_layers)

    def _mixture(self, target: float, num_layers: int) -> Curve:
        return mixture(target, tuple(self.recipes.values()), num_layers)


def attention_scores(attention: Callable[[Tensor], Tensor], is_visual: Tensor, rows: int = ROWS) -> Tensor:
    """The score of each visual token, [v], float32: what it gets from visual rows times what it gets from the text.

    Args:
        attention: as `LayerState.attention`.
        is_visual: [tokens], bool, at least one.
        rows: how many are in memory at once; it changes no more than the order of a sum.
    """
    own, cross = attention_received(attention, is_visual, rows)
    return own if cross is None else own * cross


def attention_received(
    attention: Callable[[Tensor], Tensor], is_visual: Tensor, rows: int = ROWS
) -> tuple[Tensor, Tensor | None]:
    """What each visual token gets, [v], float32: from visual rows, their mean; from the text behind the last, its sum.

    A row is the maximum over heads. None in place of the sum where no text stands there.
    """
    visual = is_visual.nonzero()[:, 0]
    behind = torch.arange(int(visual[-1]) + 1, len(is_visual), device=visual.device)
    own = _summed(attention, visual, visual, rows) / len(visual)
    return own, _summed(attention, behind, visual, rows) if len(behind) else None


def _summed(attention: Callable[[Tensor], Tensor], queries: Tensor, columns: Tensor, rows: int) -> Tensor:
    """Attention weights that columns get, [columns]: of each row the maximum over heads, summed over rows."""
    return torch.stack([attention(part).amax(dim=0)[:, columns].sum(dim=0) for part in queries.split(rows)]).sum(dim=0)
