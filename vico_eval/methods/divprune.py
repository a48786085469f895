"""DivPrune: of each image, the visual tokens that are farthest from each other enter the decoder.

Place:   selection.
Source:  Alvar et al., CVPR 2025 (arXiv 2503.02175); order and counts as in the released code. Greedy max-min of the
         cosine distance: first the token whose nearest other one is farthest, then, again and again, the one that is
         farthest from all kept so far. No attention, no text, no hyper-parameter but the share that stays.
Differs: the released code looks at all tokens of LLaVA's one picture together; so do we, image by image: all tiles, the
         thumbnail among them, and tiles of 64 tokens beside those of 256. So a plain tile loses more than a busy one.
         `group=tile` chooses within each tile. Every frame of a video is an image. Tokens that are kept can't be chosen
         again (released code repeats one when all that are left equal kept ones), at least one stays, and of equally
         far tokens the earlier is taken. float32 throughout: the release chooses in half precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.budgets import BudgetedSelection, KeepRatio
from vico_eval.methods.shared.cosines import cosines
from vico_eval.methods.shared.groups import IMAGE, TILE, Groups, select_on_host
from vico_eval.runs.costs import ChoiceCosts

GROUPS = (IMAGE, TILE)


@dataclass(frozen=True, kw_only=True)
class DivPruneConfig(KeepRatio):
    """How many tokens, and among which they are chosen."""

    group: str = IMAGE
    """image: all tokens of an image compete; tile: those of each tile."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group not in GROUPS:
            raise ConfigError(f"divprune got group={self.group!r}; expected {' or '.join(GROUPS)}.")


class DivPrune(BudgetedSelection):
    """Keeps tokens far from each other."""

    Config = DivPruneConfig
    config: DivPruneConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """The distances of n tokens, 2 D n^2. The greedy choice looks at them, which is no product."""
        return (ChoiceCosts(group="image" if self.config.group == IMAGE else "tile", pair=2 * widths.model),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The most diverse tokens of every group."""
        return select_on_host(requests, self.config, _weigh, farthest_first, self.config.group)


def _weigh(groups: Groups) -> tuple[Tensor]:
    return (distances(groups.tokens),)


def distances(tokens: Tensor) -> Tensor:
    """Cosine distances [groups, n, n], float32, of tokens [groups, n, D]; infinite from a token to itself."""
    between = cosines(tokens).neg_().add_(1)  # in place: of a large image this is hundreds of megabytes
    between.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    return between


def farthest_first(distances: Tensor, num_keep: int) -> Tensor:
    """The greedy choice that makes the smallest distance among the chosen large.

    Args:
        distances: [groups, n, n], infinite from a token to itself; on the CPU.
        num_keep: k, 1..n.

    Returns:
        [groups, k], int64, in the order of choosing: that of k tokens begins that of k + 1.
    """
    between = distances.numpy()
    every = np.arange(len(between))
    picked = between.min(axis=1).argmax(axis=1)
    order = [picked]
    nearest = between[every, picked].copy()
    for _ in range(num_keep - 1):
        nearest[every, picked] = -np.inf  # and stays so: the smaller distance counts
        picked = nearest.argmax(axis=1)
        order.append(picked)
        np.minimum(nearest, between[every, picked], out=nearest)
    return torch.from_numpy(np.stack(order, axis=1))
