"""DART: a few tokens are pivots; of the other visual tokens, those stay that are least like one of them.

Place:   decoder, once.
Source:  DART (arXiv 2502.11494, EMNLP 2025) and its released code: pivots are the tokens with the largest L1 norm of
         the keys of layer K - 1, some of the image and some of the text behind it. One after the other picks the visual
         tokens of lowest cosine to it, by layer K - 1's output through the model's final norm: `n * keep_ratio //
         pivots` of them, and the image pivots stay on top of these. Positions are kept.
Differs: pivots take turns in the release's order, that of a Python set of their places in the prompt, so a longer
         system message gives another choice (`pivot_order=set`). `pivot_order=norm` is ours: image pivots first, each
         kind by falling norm. All visual tokens of a request are ranked together, and text pivots stand behind the last
         of them; in the release a second image counts as text. Where there are fewer tokens of a kind than pivots, or
         fewer left than a pivot is to pick, the release fails and this takes all of them; without any pivot nothing
         leaves. target_ratio= is ours: the wanted average over all decoder layers of the visual tokens that a layer
         works on, as a share of those at the input. It fixes how many tokens stay, so the first pivots may pick
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
"""The release's scripts for LLaVA-1.5 have its pivots pick 128 of 576."""


@dataclass(frozen=True, kw_only=True)
class DartConfig(SingleCut):
    """Where tokens leave, how many, and who picks those that stay."""

    keep_ratio: float | None = None
    """Share of a request's visual tokens that the pivots are to pick, in [0, 1], rounded down to the same number for
    each; image pivots stay too. 128/576 without target_ratio."""

    image_pivots: int = 4
    """How many visual tokens are pivots."""

    text_pivots: int = 4
    """How many text tokens are, of those behind the last visual one."""

    pivot_order: str = "set"
    """set: the release's, which depends on what stands before the image; norm: by falling norm, image pivots first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise ConfigError(f"dart got layer={self.layer}; expected at least 1: one layer has to make the keys.")
        self.refuse_beside_target("dart", "keep_ratio")
        if self.keep_ratio is not None and not 0 <= self.keep_ratio <= 1:
            raise ConfigError(
                f"dart got keep_ratio={self.keep_ratio}; expected the share of visual tokens that pivots pick, in "
                "[0, 1]: 1 - reduction of the release."
            )
        if min(self.image_pivots, self.text_pivots) < 0 or self.image_pivots + self.text_pivots == 0:
            raise ConfigError(
                f"dart got image_pivots={self.image_pivots} and text_pivots={self.text_pivots}; expected at least one "
                "pivot, and none below 0."
            )
        if self.pivot_order not in PIVOT_ORDERS:
            raise ConfigError(f"dart got pivot_order={self.pivot_order!r}; expected {' or '.join(PIVOT_ORDERS)}.")


class Dart(DecoderPart):
    """Picks visual tokens once, by how little they are like pivots."""

    Config = DartConfig
    config: DartConfig

    def check(self, facts: ModelFacts) -> None:
        """Needs more layers than K, and a reachable target."""
        self.config.check_cut("dart", facts)

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The first layer that works on less: the keys of the one before rank."""
        return {self.config.layer}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """Cosines of p pivots with all n tokens: 2 D p n; fewer where a prompt has fewer tokens than pivots."""
        pivots = self.config.image_pivots + self.config.text_pivots
        return (ChoiceCosts(layer=self.config.layer, token=2 * widths.model * pivots),)

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, the image pivots, and what the pivots pick."""
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
    """The pivots: tokens of the largest norms, visual ones and text behind the last visual one, each by falling norm.

    Args:
        norms: [tokens], float32.
        is_visual: [tokens], bool, at least one.
        num_image: how many visual pivots; fewer where there are fewer tokens.
        num_text: how many of text.
    """
    visual = is_visual.nonzero()[:, 0]
    behind = torch.arange(int(visual[-1]) + 1, len(norms), device=visual.device)
    image, text = (
        # Stable, because topk leaves ties open.
        tokens[norms[tokens].sort(descending=True, stable=True).indices[:number]].tolist()
        for tokens, number in ((visual, num_image), (behind, num_text))
    )
    return image, text


def in_turn(image: Sequence[int], text: Sequence[int], order: str) -> list[int]:
    """In which order the pivots pick.

    Args:
        image: places in the prompt, padding not counted, by falling norm.
        text: the same.
        order: one of PIVOT_ORDERS.
    """
    pivots = [*image, *text]
    # The release iterates over a set of them: for integers, the order of CPython's hash table, no sorted one.
    return list(set(pivots)) if order == "set" else pivots


def pivot_cosines(features: Tensor, pivots: Sequence[int]) -> Tensor:
    """Cosine [pivots, tokens], float32, of each pivot and each token, of features [tokens, D]."""
    directions = normalize(features.float(), dim=-1, eps=1e-8)
    return directions[list(pivots)] @ directions.T


def released_picks(num_visual: int, keep_ratio: float, num_pivots: int) -> list[int]:
    """How many tokens each pivot is to pick by the release's rule: the same number, rounded down."""
    return [int(num_visual * keep_ratio // num_pivots)] * num_pivots


def exact_picks(num_picked: int, num_pivots: int) -> list[int]:
    """How many tokens each pivot is to pick so that they are so many together."""
    each, rest = divmod(max(0, num_picked), num_pivots)
    return [each + (turn < rest) for turn in range(num_pivots)]


def picked_tokens(cosines: Tensor, pool: Tensor, picks: Sequence[int]) -> list[Tensor]:
    """What each pivot picks of those that are left: the tokens of the lowest cosine, lowest first.

    Args:
        cosines: [pivots, tokens], in the order of the pivots' turns.
        pool: [tokens], bool: which can be picked.
        picks: [pivots]: how many; fewer where fewer are left.

    Returns:
        [picked], int64, of each pivot.
    """
    left, in_pool = pool.clone(), int(pool.sum())
    picked = []
    for cosine, wanted in zip(cosines, picks, strict=True):
        num_picked = min(wanted, in_pool)
        # Stable: of equal cosines the earlier token.
        picked.append(cosine.masked_fill(~left, float("inf")).sort(stable=True).indices[:num_picked])
        left[picked[-1]] = False
        in_pool -= num_picked
    return picked
