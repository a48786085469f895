"""Groups of visual tokens that compete for places among themselves alone: a tile's, or an image's without tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from vico_eval.methods.interface import Selected, VisualTokens
from vico_eval.methods.shared.budgets import num_keep


def groups_of(visual: VisualTokens) -> list[Tensor]:
    """Indices [group] of each group's tokens, ascending; the groups in the order of the prompt."""
    label = torch.where(visual.tile < 0, visual.image, visual.tile)
    _, sizes = torch.unique_consecutive(label, return_counts=True)
    return list(torch.arange(len(label), device=label.device).split(sizes.tolist()))


def highest_of_each_group(visual: VisualTokens, scores: Tensor, keep_ratio: float) -> Selected | None:
    """The share of every group whose scores [n] are highest; of equal ones, the earlier. None where all stay."""
    kept = []
    for group in groups_of(visual):
        # Stable, because topk leaves ties open.
        order = scores[group].sort(descending=True, stable=True).indices
        kept.append(group[order[: num_keep(len(group), keep_ratio)].sort().values])
    keep = torch.cat(kept)
    return None if len(keep) == len(scores) else Selected(keep)
