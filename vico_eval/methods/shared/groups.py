"""Groups of visual tokens that compete for places only among themselves, many groups at once.

A group is a tile's tokens (an image's, if there are no tiles), or all of an image's. Groups of one size that keep the
same number are processed together, whatever request they are from; none depends on another.

Shapes: groups = groups processed together; n = tokens of each group; k = tokens that stay in each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from vico_eval.methods.interface import Selected, VisualTokens
from vico_eval.methods.shared.budgets import KeepRatio
from vico_eval.methods.shared.copies import CPU, moved

TILE, IMAGE = "tile", "image"

MAX_NUMBERS = 2**25
"""Limit on the numbers in tokens, or in pairs of tokens, that are processed or copied at once: 128 MiB in float32, of
which a method holds a few copies. A larger group is processed alone."""


class Group(NamedTuple):
    """A consecutive run of a request's tokens."""

    request: int
    start: int
    size: int
    num_keep: int

    @property
    def span(self) -> slice:
        """The group's places among the request's tokens."""
        return slice(self.start, self.start + self.size)


class Groups:
    """Groups of one size that keep the same number of tokens."""

    def __init__(self, requests: Sequence[VisualTokens], groups: Sequence[Group]) -> None:
        self._requests = requests
        self.groups = groups
        self.num_keep = groups[0].num_keep

    @property
    def tokens(self) -> Tensor:
        """[groups, n, D]."""
        return self.stack([visual.tokens for visual in self._requests])

    @property
    def scores(self) -> Tensor:
        """[groups, n], float32; only for a part that needs them."""
        return self.stack([visual.scores for visual in self._requests])

    @property
    def keys(self) -> Tensor:
        """[groups, n, d], float32; only for a part that needs them."""
        return self.stack([visual.keys for visual in self._requests])

    @property
    def grid_yx(self) -> Tensor:
        """[groups, n, 2], float32."""
        return self.stack([visual.grid_yx for visual in self._requests])

    def stack(self, values: Sequence[Tensor | None]) -> Tensor:
        """Values of each request's tokens [requests][tokens, ...] as [groups, n, ...]."""
        taken = []
        for group in self.groups:
            of_request = values[group.request]
            assert of_request is not None, "asked for in `needs`"
            taken.append(of_request[group.span])
        return torch.stack(taken)


def groups_of(requests: Sequence[VisualTokens], budget: KeepRatio, by: str = TILE) -> list[list[Group]]:
    """The groups of each request in the order of its tokens, with the number of tokens that stay in each."""
    (labels,) = moved(
        CPU,
        [visual.image if by == IMAGE else visual.image.where(visual.tile < 0, visual.tile) for visual in requests],
    )
    found = []
    for number, (visual, label) in enumerate(zip(requests, labels, strict=True)):
        sizes = torch.unique_consecutive(label, return_counts=True)[1].tolist()
        starts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
        counts = budget.num_keep(visual.key, sizes)
        found.append([Group(number, *each) for each in zip(starts, sizes, counts, strict=True)])
    return found


def together(requests: Sequence[VisualTokens], groups: Sequence[Sequence[Group]]) -> Iterator[Groups]:
    """All groups that lose a token, batched by size and by the number that stays."""
    alike: dict[tuple[int, int], list[Group]] = defaultdict(list)
    for of_request in groups:
        for group in of_request:
            if group.num_keep < group.size:
                alike[group.size, group.num_keep].append(group)
    for (size, _), members in alike.items():
        at_once = max(1, MAX_NUMBERS // (size * max(size, requests[members[0].request].tokens.shape[1])))
        for first in range(0, len(members), at_once):
            yield Groups(requests, members[first : first + at_once])


def select_in_groups(
    requests: Sequence[VisualTokens], budget: KeepRatio, choose: Callable[[Groups], Tensor], by: str = TILE
) -> list[Selected | None]:
    """What stays of each request; None if all of it does.

    Args:
        requests: requests to select from.
        budget: how many tokens stay.
        choose: returns the places [groups, k] of the tokens that stay within their groups, int64, in any order.
        by: TILE or IMAGE.
    """
    groups = groups_of(requests, budget, by)
    return _selected(groups, ((alike, choose(alike)) for alike in together(requests, groups)))


def select_on_host(
    requests: Sequence[VisualTokens],
    budget: KeepRatio,
    weigh: Callable[[Groups], tuple[Tensor, ...]],
    choose: Callable[..., Tensor],
    by: str = TILE,
) -> list[Selected | None]:
    """As `select_in_groups`, for a choice in many small steps, each of which would be a kernel on an accelerator.

    The host waits once for the groups of all requests, and once more whenever `MAX_NUMBERS` have been copied.

    Args:
        requests: requests to select from.
        budget: how many tokens stay.
        weigh: computes what the choice is based on, on the tokens' device.
        choose: returns the places [groups, k], from what `weigh` computed, by then on the CPU, and how many tokens stay
            (`num_keep`).
        by: TILE or IMAGE.
    """
    groups = groups_of(requests, budget, by)
    return _selected(
        groups,
        (
            (alike, choose(*weighed, num_keep=alike.num_keep))
            for portion in _portions(together(requests, groups), weigh)
            for alike, weighed in portion
        ),
    )


def _portions(
    groups: Iterator[Groups], weigh: Callable[[Groups], tuple[Tensor, ...]]
) -> Iterator[list[tuple[Groups, list[Tensor]]]]:
    """Groups with what `weigh` computes for them, on the CPU: copied together, as much at once as memory may hold."""
    waiting: list[tuple[Groups, tuple[Tensor, ...]]] = []
    num_waiting = 0
    for alike in groups:
        weighed = weigh(alike)
        size = sum(tensor.numel() for tensor in weighed)
        if waiting and num_waiting + size > MAX_NUMBERS:
            yield _on_host(waiting)
            waiting, num_waiting = [], 0
        waiting.append((alike, weighed))
        num_waiting += size
    if waiting:
        yield _on_host(waiting)


def _on_host(weighed: Sequence[tuple[Groups, tuple[Tensor, ...]]]) -> list[tuple[Groups, list[Tensor]]]:
    copies = moved(CPU, *(tensors for _, tensors in weighed))
    return [(alike, copied) for (alike, _), copied in zip(weighed, copies, strict=True)]


def _selected(groups: Sequence[Sequence[Group]], chosen: Iterable[tuple[Groups, Tensor]]) -> list[Selected | None]:
    """What stays of each request, from its groups and the places [groups, k] in those that lose a token."""
    kept: dict[Group, Tensor] = {}
    device = CPU
    for alike, places in chosen:
        device = places.device
        places = places.sort(dim=1).values
        kept |= {group: group.start + of_group for group, of_group in zip(alike.groups, places, strict=True)}
    return [
        Selected(torch.cat([kept[group] if group in kept else all_of(group, device) for group in of_request]))
        if any(group in kept for group in of_request)
        else None
        for of_request in groups
    ]


def all_of(group: Group, device: torch.device) -> Tensor:
    """Places of a group's tokens among the request's, [n], int64."""
    return torch.arange(group.start, group.start + group.size, device=device)


def highest_scores(scores: Tensor, num_keep: int) -> Tensor:
    """Places [groups, k] of the highest scores [groups, n], highest first; of equal ones, the earlier first."""
    # Stable, because topk does not define the order of ties.
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :num_keep]
