"""DART: a few tokens act as pivots, and each keeps the visual tokens that are least similar to it.

Place:   decoder, once.
Source:  DART (arXiv 2502.11494, EMNLP 2025) and its released code. Pivots are the tokens whose keys in layer K - 1 have
         the largest L1 norm, some in the image and some in the text after it. They take turns: each picks the `n *
         keep_ratio // pivots` visual tokens with the lowest cosine to it, computed on the output of layer K - 1 after
         the model's final norm. Image pivots stay in addition to these. Positions are kept.
Differs: in the released code, the pivots' turns follow a Python set of their positions in the prompt, so a longer
         system message changes the choice (`pivot_order=set`). `pivot_order=norm` is ours: image pivots first, each
         kind by falling norm. All visual tokens of a request are ranked together, and text pivots come after the last
         of them; the released code treats a second image as text. If there are fewer tokens of a kind than pivots, or
         fewer tokens left than a pivot should pick, the released code fails; here, all of them are taken. Without
         pivots, no token leaves. `target_ratio` is ours: the average over all decoder layers of the visual tokens a
         layer processes, as a share of those at the input. It fixes how many tokens stay, so the first pivots may pick
         one more than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import DecoderPart, LayerState, ModelFacts, NextTokens, Widths
from vico_eval.methods.shared.single_cut import SingleCut
from vico_eval.runs.costs import ChoiceCosts

PIVOT_ORDERS = ("set", "norm")
DEFAULT_KEEP_RATIO = 128 / 576
"""In the released scripts for LLaVA-1.5, the pivots pick 128 of 576 tokens."""


@dataclass(frozen=True, kw_only=True)
class DartConfig(SingleCut):
    """Where tokens leave, how many stay, and how pivots pick them."""

    keep_ratio: float | None = None
    """Share of a request's visual tokens that the pivots pick, in [0, 1], rounded down to the same number per pivot;
    image pivots stay in addition. 128/576 unless a target is given."""

    image_pivots: int = 4
    """Number of visual tokens that act as pivots."""

    text_pivots: int = 4
    """Number of text tokens after the last visual token that act as pivots."""

    pivot_order: str = "set"
    """set: as released, which depends on the tokens before the image; norm: by falling norm, image pivots first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise ConfigError(f"dart got layer={self.layer}; expected at least 1, because a layer must compute keys.")
        self.refuse_beside_target("dart", "keep_ratio")
        if self.keep_ratio is not None and not 0 <= self.keep_ratio <= 1:
            raise ConfigError(
                f"dart got keep_ratio={self.keep_ratio}; expected the share of visual tokens that pivots pick, in "
                "[0, 1], which is 1 - reduction of the released code."
            )
        if min(self.image_pivots, self.text_pivots) < 0 or self.image_pivots + self.text_pivots == 0:
            raise ConfigError(
                f"dart got image_pivots={self.image_pivots} and text_pivots={self.text_pivots}; expected at least one "
                "pivot, and none below 0."
            )
        if self.pivot_order not in PIVOT_ORDERS:
            raise ConfigError(f"dart got pivot_order={self.pivot_order!r}; expected {' or '.join(PIVOT_ORDERS)}.")


class Dart(DecoderPart):
    """Keeps the visual tokens that are least similar to pivots; acts once."""

    Config = DartConfig
    config: DartConfig

    def check(self, facts: ModelFacts) -> None:
        """Require more than K layers, and a target that can be reached."""
        self.config.check_cut("dart", facts)

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The first layer with fewer tokens; the keys of the layer before it select the pivots."""
        return {self.config.layer}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """Cosines of p pivots with all n tokens, 2 D p n; less if a prompt has fewer tokens than pivots."""
        pivots = self.config.image_pivots + self.config.text_pivots
        return (ChoiceCosts(layer=self.config.layer, token=2 * widths.model * pivots),)

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, the image pivots, and the tokens that the pivots pick."""
        num_visual = int(state.is_visual.sum())
        target = self.config.target_of(state.key)
        num_keep = None if target is None else round(num_visual * self.config.share_behind(target, state.num_layers))
        if num_keep == num_visual:
            return None
        norms = state.previous_keys.float().abs().sum(dim=(0, 2))
        state.check_finite("key norms", norms)
        image, text = strongest(norms, state.is_visual, self.config.image_pivots, self.config.text_pivots)
        if not image + text:
            return None
        if num_keep is None:
            keep_ratio = DEFAULT_KEEP_RATIO if self.config.keep_ratio is None else self.config.keep_ratio
            picks = released_picks(num_visual, keep_ratio, len(image + text))
        else:
            picks = exact_picks(num_keep - len(image), len(image + text))
        cosines = pivot_cosines(state.final_norm(state.hidden), in_turn(image, text, self.config.pivot_order))
        state.check_finite("cosines", cosines)
        stays = ~state.is_visual
        stays[image[:num_keep]] = True
        for picked in picked_tokens(cosines, ~stays, picks):
            stays[picked] = True
        return NextTokens(stays.nonzero()[:, 0])


def strongest(norms: Tensor, is_visual: Tensor, num_image: int, num_text: int) -> tuple[list[int], list[int]]:
    """The pivots: visual tokens, and text tokens after the image, of the largest norms, each kind by falling norm.

    Args:
        norms: [tokens], float32.
        is_visual: [tokens], bool, at least one.
        num_image: number of visual pivots; all visual tokens if there are fewer.
        num_text: number of text pivots; all text tokens after the image if there are fewer.
    """
    visual = is_visual.nonzero()[:, 0]
    behind = torch.arange(int(visual[-1]) + 1, len(norms), device=visual.device)
    image, text = (
        # Stable, because topk does not define the order of ties.
        tokens[norms[tokens].sort(descending=True, stable=True).indices[:number]].tolist()
        for tokens, number in ((visual, num_image), (behind, num_text))
    )
    return image, text


def in_turn(image: Sequence[int], text: Sequence[int], order: str) -> list[int]:
    """The order in which the pivots pick.

    Args:
        image: positions in the prompt, padding not counted, by falling norm.
        text: likewise.
        order: one of PIVOT_ORDERS.
    """
    pivots = [*image, *text]
    # The released code iterates over a set of positions, in the order of CPython's hash table, which is not sorted.
    return list(set(pivots)) if order == "set" else pivots


def pivot_cosines(features: Tensor, pivots: Sequence[int]) -> Tensor:
    """Cosine [pivots, tokens], float32, of each pivot with each token, given features [tokens, D]."""
    directions = normalize(features.float(), dim=-1, eps=1e-8)
    return directions[list(pivots)] @ directions.T


def released_picks(num_visual: int, keep_ratio: float, num_pivots: int) -> list[int]:
    """Number of tokens each pivot picks under the released rule: the same for all, rounded down."""
    return [int(num_visual * keep_ratio // num_pivots)] * num_pivots


def exact_picks(num_picked: int, num_pivots: int) -> list[int]:
    """Number of tokens each pivot picks so that the total is `num_picked`."""
    each, rest = divmod(max(0, num_picked), num_pivots)
    return [each + (turn < rest) for turn in range(num_pivots)]


def picked_tokens(cosines: Tensor, pool: Tensor, picks: Sequence[int]) -> list[Tensor]:
    """The tokens each pivot picks from those left: those with the lowest cosine, lowest first.

    Args:
        cosines: [pivots, tokens], in the order of the pivots' turns.
        pool: [tokens], bool: tokens that can be picked.
        picks: [pivots], number to pick; all that are left if there are fewer.

    Returns:
        [picked], int64, for each pivot.
    """
    left, in_pool = pool.clone(), int(pool.sum())
    picked = []
    for cosine, wanted in zip(cosines, picks, strict=True):
        num_picked = min(wanted, in_pool)
        # Stable: if cosines are equal, the earlier token is picked.
        picked.append(cosine.masked_fill(~left, float("inf")).sort(stable=True).indices[:num_picked])
        left[picked[-1]] = False
        in_pool -= num_picked
    return picked
