"""DivPrune: within each image, keep the visual tokens that are farthest from each other.

Place:   selection.
Source:  Alvar et al., CVPR 2025 (arXiv 2503.02175); order and counts follow the released code. Greedy max-min on the
         cosine distance: start with the token whose nearest neighbour is farthest, then repeatedly add the token
         farthest from all kept so far. It uses neither attention nor text, and its only hyper-parameter is the share
         that stays.
Differs: the released code compares all tokens of LLaVA's single image. Here, too, an image's tokens compete together:
         all its tiles, the thumbnail included, and tiles of 64 tokens with tiles of 256. A plain tile therefore loses
         more tokens than a busy one. `group=tile` chooses within each tile. Every video frame is an image. A kept token
         can't be chosen again (the released code repeats one when all remaining tokens equal kept ones), at least one
         token stays, and ties go to the earlier token. Distances are float32; the released code chooses in half
         precision.
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
    """Token budget, and the group within which tokens compete."""

    group: str = IMAGE
    """image: all tokens of an image compete; tile: only those of the same tile."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group not in GROUPS:
            raise ConfigError(f"divprune got group={self.group!r}; expected {' or '.join(GROUPS)}.")


class DivPrune(BudgetedSelection):
    """Keeps tokens that are far from each other."""

    Config = DivPruneConfig
    config: DivPruneConfig

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """Distances of n tokens, 2 D n^2. The greedy choice compares them without matrix products."""
        return (ChoiceCosts(group="image" if self.config.group == IMAGE else "tile", pair=2 * widths.model),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The most diverse tokens of every group."""
        return select_on_host(requests, self.config, _weigh, farthest_first, self.config.group)


def _weigh(groups: Groups) -> tuple[Tensor]:
    return (distances(groups.tokens),)


def distances(tokens: Tensor) -> Tensor:
    """Cosine distances [groups, n, n], float32, of tokens [groups, n, D]; infinite from a token to itself."""
    between = cosines(tokens).neg_().add_(1)  # in place: a large image needs hundreds of megabytes
    between.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    return between


def farthest_first(distances: Tensor, num_keep: int) -> Tensor:
    """The greedy choice that makes the smallest distance among the chosen tokens large.

    Args:
        distances: [groups, n, n], infinite from a token to itself; on the CPU.
        num_keep: k, 1..n.

    Returns:
        [groups, k], int64, in the order of choosing; a larger budget extends the same sequence.
    """
    between = distances.numpy()
    every = np.arange(len(between))
    picked = between.min(axis=1).argmax(axis=1)
    order = [picked]
    nearest = between[every, picked].copy()
    for _ in range(num_keep - 1):
        nearest[every, picked] = -np.inf  # and stays so, because the minimum below can't raise it
        picked = nearest.argmax(axis=1)
        order.append(picked)
        np.minimum(nearest, between[every, picked], out=nearest)
    return torch.from_numpy(np.stack(order, axis=1))
