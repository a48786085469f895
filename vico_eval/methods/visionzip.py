"""VisionZip: keep the visual tokens to which the encoder attends most, and merge the others into a few.

Place:   selection.
Needs:   attention and keys of the vision encoder, and the inputs of its connector.
Source:  Yang et al., CVPR 2025 (arXiv 2412.04467); dominant tokens, targets and merging follow the released code, with
         its 54 dominant tokens to 10 merged ones. Among the tokens that are not dominant, evenly spaced ones are
         targets. Every other one joins the target whose key is most similar to its own. A target becomes itself plus
         the mean of those that joined.
Differs: works per tile. The class token is not among the tokens, because InternVL's decoder never sees it. Scores and
         keys are pooled over the patches of a visual token. Merged tokens take their targets' places (released: after
         all dominant ones). `merge_at=connector` merges the connector's inputs, as released: encoder, merging,
         projector. InternVL's connector begins with a norm, which removes the doubled length of a merged token; LLaVA's
         has none. `merge_at=decoder` merges visual tokens, as ports to InternVL do. If a tile keeps one token, none is
         merged. Targets are evenly spaced in token order, which runs down columns in early checkpoints (pixel shuffle
         v1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import CONNECTOR_INPUTS, ENCODER_KEYS, ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.cosines import unit
from vico_eval.methods.shared.encoder_scores import EncoderScores, ScoredSelection
from vico_eval.methods.shared.groups import Group, Groups, all_of, groups_of, highest_scores, together
from vico_eval.runs.costs import ChoiceCosts

MERGE_AT = ("connector", "decoder")
CONTEXTUAL, OF = 10, 64
"""Merged tokens, and all tokens that stay, in the released README."""


@dataclass(frozen=True, kw_only=True)
class VisionZipConfig(EncoderScores):
    """Token budget, source of attention, and where tokens are merged."""

    merge_at: str = "connector"
    """connector: merge its inputs; decoder: merge its outputs, the visual tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_at not in MERGE_AT:
            raise ConfigError(f"visionzip got merge_at={self.merge_at!r}; expected {' or '.join(MERGE_AT)}.")


class _Kept(NamedTuple):
    """The tokens of a group that stay."""

    places: Tensor
    """[k], int64, ascending, within the group."""

    is_merged: Tensor
    """[k], bool."""

    merged: Tensor
    """[contextual, D]."""


class VisionZip(ScoredSelection):
    """Keeps dominant tokens and merges the others into a few."""

    Config = VisionZipConfig
    config: VisionZipConfig

    @property
    def needs(self) -> frozenset[str]:
        """The encoder's attention and keys, and the connector's inputs if these are merged."""
        merged = {CONNECTOR_INPUTS} if self.config.merge_at == "connector" else set()
        return super().needs | {ENCODER_KEYS} | merged

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """Making c = a r n merged tokens of n, with a = 10/64 of the share r that stays; rounding is ignored.

        Cosines of the keys (width h) that are not dominant with those of the targets, 2 h (n - r n + c) c. Sums of the
        connector's inputs (width W; or of its outputs, width D), 2 W n c. For inputs, the connector on c tokens.
        """
        share = fmean(self.config.shares().values())
        made = share * CONTEXTUAL / OF
        is_before = self.config.merge_at == "connector"
        width = widths.connector_input if is_before else widths.model
        pair = 2 * made * (widths.encoder_key * (1 - share + made) + width)
        return (ChoiceCosts(pair=round(pair), token=round(made * widths.connector_operations) if is_before else 0),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The dominant and the merged tokens of every tile."""
        groups = groups_of(requests, self.config)
        kept: dict[Group, _Kept] = {}
        for alike in together(requests, groups):
            kept |= dict(zip(alike.groups, self._zip(requests, alike), strict=True))
        return [
            _together(visual, of_request, kept) if any(group in kept for group in of_request) else None
            for visual, of_request in zip(requests, groups, strict=True)
        ]

    def _zip(self, requests: Sequence[VisualTokens], groups: Groups) -> list[_Kept]:
        scores, num_merged = groups.scores, num_contextual(groups.num_keep)
        chosen = choose(scores, groups.keys, groups.num_keep - num_merged, num_merged)
        merged = self._merged(requests, groups, merging(chosen, scores.shape[1]))
        places = torch.cat([chosen.dominant, chosen.targets], dim=1).sort(dim=1)
        is_merged = places.indices >= chosen.dominant.shape[1]
        return [_Kept(*each) for each in zip(places.values, is_merged, merged, strict=True)]

    def _merged(self, requests: Sequence[VisualTokens], groups: Groups, weights: Tensor) -> Tensor:
        """The merged tokens, [groups, contextual, D]."""
        if self.config.merge_at == "decoder":
            tokens = groups.tokens
            return (weights @ tokens.float()).to(tokens)
        made, done = [], 0
        for number, members in groupby(groups.groups, key=lambda group: group.request):
            starts = torch.tensor([group.start for group in members])
            connect = requests[number].connect_mixed
            assert connect is not None, "asked for in `needs`"
            places = starts[:, None] + torch.arange(weights.shape[2])
            made.append(connect(places, weights[done : done + len(starts)]))
            done += len(starts)
        return torch.cat(made)


def _together(visual: VisualTokens, groups: Sequence[Group], kept: dict[Group, _Kept]) -> Selected:
    """The tokens of a request's groups; every token of the groups that lose none."""
    keep, is_merged, merged = [], [], []
    for group in groups:
        if group in kept:
            keep.append(group.start + kept[group].places)
            is_merged.append(kept[group].is_merged)
            merged.append(kept[group].merged)
        else:
            keep.append(all_of(group, visual.tokens.device))
            is_merged.append(torch.zeros(group.size, dtype=torch.bool, device=visual.tokens.device))
    return Selected(torch.cat(keep), torch.cat(merged), torch.cat(is_merged))


def num_contextual(num_keep: int) -> int:
    """Number of kept tokens that are merged ones: 10 of 64, rounded, at least 1 beside a dominant one."""
    return min(num_keep - 1, max(1, round(num_keep * CONTEXTUAL / OF)))


class Choice(NamedTuple):
    """Places within groups of n tokens."""

    dominant: Tensor
    """[groups, d], int64, ascending."""

    others: Tensor
    """[groups, n - d], int64, ascending."""

    targets: Tensor
    """[groups, c], int64, ascending; some of the others."""

    joins: Tensor
    """[groups, n - d], int64: number of the target that each of the others joins; a target joins itself."""


def choose(scores: Tensor, keys: Tensor, num_dominant: int, num_targets: int) -> Choice:
    """Which tokens are dominant, which are targets, and which target the others join.

    Args:
        scores: [groups, n].
        keys: [groups, n, width].
        num_dominant: d, 0..n - c.
        num_targets: c, 0..n - d.
    """
    dominant = highest_scores(scores, num_dominant).sort(dim=1).values
    is_dominant = torch.zeros_like(scores, dtype=torch.int32).scatter(1, dominant, 1)
    # Sorted, because the host would have to wait for the number of places that `nonzero` finds.
    others = is_dominant.sort(dim=1, stable=True).indices[:, : scores.shape[1] - num_dominant]
    step = max(1, others.shape[1] // max(1, num_targets))
    targets = others[:, ::step][:, :num_targets]
    number = torch.arange(num_targets, device=scores.device)
    if num_targets == 0:
        return Choice(dominant, others, targets, torch.zeros_like(others))
    units = unit(keys)
    likeness = _rows(units, others) @ _rows(units, targets).transpose(1, 2)  # [groups, n - d, c]
    is_best = likeness == likeness.max(dim=2, keepdim=True).values
    joins = number.where(is_best, num_targets).min(dim=2).values  # the first of equal ones
    joins[:, : num_targets * step : step] = number
    return Choice(dominant, others, targets, joins)


def _rows(values: Tensor, places: Tensor) -> Tensor:
    """[groups, places, width]."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def merging(chosen: Choice, num_tokens: int) -> Tensor:
    """Weights of each merged token, [groups, c, n], float32: 1 on its target, and the mean of those that joined."""
    num_targets = chosen.targets.shape[1]
    number = torch.arange(num_targets, device=chosen.joins.device)
    joined = (chosen.joins[:, None] == number[:, None]).float()  # [groups, c, n - d]
    weights = joined.new_zeros(len(joined), num_targets, num_tokens)
    weights.scatter_(2, chosen.others[:, None].expand(-1, num_targets, -1), joined)
    targets = chosen.targets[..., None]
    weights.scatter_(2, targets, 0.0)
    weights /= weights.sum(dim=2, keepdim=True).clamp(min=1)
    return weights.scatter(2, targets, 1.0)
