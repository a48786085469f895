"""FitPrune: layer by layer, remove the visual tokens that receive the least attention from the image and the question.

Place:   decoder, after each layer in which the recipe removes tokens; in most recipes, from the first layer on.
Needs:   a recipe for the model (recipe=), which `vico-eval fit-recipe` finds.
Source:  FitPrune (arXiv 2409.10197, AAAI 2025) and its released code. A recipe sets how many tokens leave in each
         layer; it is searched once per model and budget. The tokens that leave have the lowest product of two scores:
         the attention from visual rows (their mean) and from the text after the image (its sum). Each row is the
         maximum over heads of the layer's own weights. Positions are kept.
Differs: the released recipes are for LLaVA (`recipe=llava`, `llava_next`). On another model they are scaled and no
         longer FitPrune's own: token counts scale to a request's visual tokens, and layers to the same share of another
         depth. Tokens leave after their layer; the released code removes them inside it, which makes no difference to
         the remaining ones. All visual tokens of a request are ranked together. Text rows are those after the last of
         them; if there are none, visual rows decide alone. Attention is computed in blocks of rows, about as much work
         as in the layer itself. `target_ratio` is ours: the average over all decoder layers of the visual tokens a
         layer processes, as a share of those at the input, met by a mixture of the two nearest recipes.
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
    """Recipe and budget: how many tokens leave in each layer."""

    recipe: str | None = None
    """FILE.json with recipes searched for the model; or llava or llava_next, released recipes, which are scaled to the
    model."""

    reduction: float | None = None
    """Share of the operations on visual tokens to save, which selects a recipe; 0.6 unless a target is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction is not None and self.has_target:
            raise ConfigError("fitprune takes reduction or target_ratio, not both: each selects a recipe.")
        if self.recipe is not None and self.recipe not in RELEASED and not self.recipe.endswith(".json"):
            raise ConfigError(
                f"fitprune got recipe={self.recipe!r}; expected a file, FILE.json, or one of {', '.join(RELEASED)}."
            )


class FitPrune(DecoderPart):
    """Ranks visual tokens after many layers, by all the attention they receive there."""

    Config = FitPruneConfig
    config: FitPruneConfig

    @property
    def remark(self) -> str | None:
        """Names a recipe that was not searched for the model."""
        return RELEASED_REMARKS.get(str(self.config.recipe))

    def check(self, facts: ModelFacts) -> None:
        """Require recipes for the decoder's depth, and a target that can be reached."""
        if self.config.recipe is None:
            raise ConfigError(
                "fitprune needs a recipe, which sets how many tokens leave in each layer and is searched per model. "
                f"Pass the recipe=FILE.json that `vico-eval fit-recipe` finds for {facts.checkpoint!r}, or "
                "recipe=llava for the released one of LLaVA-1.5-7B, which is scaled to this model but was not searched "
                "for it."
            )
        num_layers = facts.num_layers
        depth = len(next(iter(self.recipes.values())).leave)
        if self.config.recipe not in RELEASED and depth != num_layers:
            raise ConfigError(
                f"fitprune got recipe={self.config.recipe}, searched for a decoder of {depth} layers, but that of "
                f"{facts.checkpoint!r} has {num_layers}. Pass a recipe that `vico-eval fit-recipe` found for it."
            )
        if not self.config.has_target and self._reduction not in self.recipes:
            raise ConfigError(
                f"fitprune got reduction={self._reduction}; {self.config.recipe} has recipes for "
                f"{', '.join(map(str, sorted(self.recipes)))}. For another share of tokens, pass target_ratio=."
            )
        for name, target in self.config.targets().items():
            if target < 1 / num_layers:
                raise ConfigError(
                    f"fitprune can't reach {name}: the first of {num_layers} layers processes all visual tokens, so "
                    f"the average is at least {1 / num_layers:.3f}. Expected at least that."
                )

    @cached_property
    def recipes(self) -> Recipes:
        """The available recipes, by reduction.

        Raises:
            ConfigError: the file can't be read or holds no recipes.
        """
        recipe = str(self.config.recipe)
        return RELEASED[recipe] if recipe in RELEASED else read_recipes(Path(recipe)).by_reduction

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers before which tokens leave, for at least one benchmark."""
        targets = self.config.targets().values()
        curves = [self._mixture(target, num_layers) for target in targets] or [self._curve(num_layers)]
        return {layer for curve in curves for layer in range(1, num_layers) if curve[layer] < curve[layer - 1]}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """In each layer, the queries of all rows once more, 2 D A n, and their logits, 2 A n^2.

        This counts the rows of text before the image, too, although they are never computed.
        """
        token, pair = 2 * widths.model * widths.queries, 2 * widths.queries
        return tuple(
            ChoiceCosts(layer=layer, token=token, pair=pair) for layer in sorted(self.layers(facts.num_layers))
        )

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, and all visual tokens except the lowest-scoring ones."""
        counts = self.counts(state.key, state.visual_tokens[0], state.num_layers)
        num_leave = state.visual_tokens[-1] - counts[state.layer]
        if num_leave == 0:
            return None
        visual = state.is_visual.nonzero()[:, 0]
        # One check covers all blocks of rows, because a NaN in any of them makes the sums NaN.
        assert state.attention_rows is not None, "acts after the first layer"
        scores = attention_scores(state.attention_rows, state.is_visual)
        state.check_finite("attention", scores)
        # Stable: if scores are equal, the earlier token leaves.
        stays = torch.ones_like(state.is_visual)
        stays[visual[scores.sort(stable=True).indices[:num_leave]]] = False
        return NextTokens(stays.nonzero()[:, 0])

    def counts(self, key: str, num_visual: int, num_layers: int) -> tuple[int, ...]:
        """Number of a document's visual tokens that enter each layer."""
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
    """Score of each visual token, [v], float32: the attention from visual rows times the attention from the text.

    Args:
        attention: as `LayerState.attention`.
        is_visual: [tokens], bool, at least one.
        rows: number of rows in memory at once; it affects only the order of a sum.
    """
    own, cross = attention_received(attention, is_visual, rows)
    return own if cross is None else own * cross


def attention_received(
    attention: Callable[[Tensor], Tensor], is_visual: Tensor, rows: int = ROWS
) -> tuple[Tensor, Tensor | None]:
    """Attention each visual token receives, [v], float32: mean over visual rows, sum over text rows after the image.

    Each row is the maximum over heads. The sum is None if no text follows the last visual token.
    """
    visual = is_visual.nonzero()[:, 0]
    behind = torch.arange(int(visual[-1]) + 1, len(is_visual), device=visual.device)
    own = _summed(attention, visual, visual, rows) / len(visual)
    return own, _summed(attention, behind, visual, rows) if len(behind) else None


def _summed(attention: Callable[[Tensor], Tensor], queries: Tensor, columns: Tensor, rows: int) -> Tensor:
    """Attention weights that the columns receive, [columns]: the maximum over heads in each row, summed over rows."""
    return torch.stack([attention(part).amax(dim=0)[:, columns].sum(dim=0) for part in queries.split(rows)]).sum(dim=0)
