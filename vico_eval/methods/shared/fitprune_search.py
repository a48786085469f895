"""Search for FitPrune's recipes: how many visual tokens can leave in each layer of a model.

Source:  FitPrune (arXiv 2409.10197, AAAI 2025) and its released statistics script. A tolerance is the share by which
         the attention that visual tokens receive in a layer, from the text and from each other, may fall below the
         unpruned model's. Every sample loses as many tokens as it allows, and a recipe has their mean, rounded down.
         Bisection finds the smallest tolerance that saves the wanted share of operations.
Differs: the released code prints the last recipe it tried, even one that saves less than wanted; this returns the last
         one that saves enough. If a tolerance is never exceeded, the released code takes another sample's number; here,
         all tokens but one leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.fitprune import attention_received
from vico_eval.methods.interface import DecoderPart, LayerState, NextTokens

PRECISION = 0.01
"""Width of the tolerance's interval at which the search ends."""


class Received(NamedTuple):
    """Total attention that a sample's visual tokens receive in one layer of the unpruned model."""

    own: float
    """From visual rows: the sum of the tokens' means."""

    cross: float
    """From the text after the image: the sum of the tokens' means."""


class Measure(DecoderPart):
    """Removes nothing, and records the attention that visual tokens receive in each layer.

    Unlike a method's part, it remembers documents: `received` holds them by key and layer.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.received: dict[str, dict[int, Received]] = {}

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """Every layer but the first, to act after every layer but the last."""
        return set(range(1, num_layers))

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """None: all tokens stay."""
        own, cross = mean_received(state)
        self.received.setdefault(state.key, {})[state.layer - 1] = Received(float(own.sum()), float(cross.sum()))
        return None


class Trial(DecoderPart):
    """Removes, after every layer, as many tokens as one tolerance allows.

    Args:
        tolerance: share by which attention may fall, in [0, 1].
        received: attention in the unpruned model, by key and layer.
    """

    def __init__(self, tolerance: float, received: Mapping[str, Mapping[int, Received]]) -> None:
        super().__init__(None)
        self._tolerance, self._received = tolerance, received

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """Every layer but the first, to act after every layer but the last."""
        return set(range(1, num_layers))

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """All text, and the visual tokens that the text or other visual tokens need."""
        whole = self._received[state.key][state.layer - 1]
        visual = state.is_visual.nonzero()[:, 0]
        can_leave = [
            dispensable(values, (1 - self._tolerance) * total)
            for values, total in zip(mean_received(state), whole, strict=True)
        ]
        stays = torch.ones_like(state.is_visual)
        stays[visual[can_leave[0] & can_leave[1]]] = False
        return NextTokens(stays.nonzero()[:, 0])


def mean_received(state: LayerState) -> tuple[Tensor, Tensor]:
    """Mean attention each visual token receives from visual rows and from text rows, [v] each, float32.

    Raises:
        RuntimeError: no text follows the visual tokens.
    """
    own, cross = attention_received(state.attention, state.is_visual)
    if cross is None:
        raise RuntimeError(f"{state.key} has no text after its visual tokens, so a search can't tell which it needs")
    return own, cross / (len(state.is_visual) - 1 - int(state.is_visual.nonzero()[-1]))


def dispensable(values: Tensor, least: float) -> Tensor:
    """Which of the lowest values [v] can leave without the others' sum falling below `least`, [v], bool; never all."""
    ordered = values.sort(stable=True)
    # What is left after the first 0, 1, ..., v - 1 have gone.
    left = ordered.values.flip(0).cumsum(dim=0).flip(0)
    too_little = (left < least).nonzero()[:, 0]
    number = max(0, int(too_little[0]) - 1) if len(too_little) else len(values) - 1
    leaves = torch.zeros_like(values, dtype=torch.bool)
    leaves[ordered.indices[:number]] = True
    return leaves


class Widths(NamedTuple):
    """Sizes of a decoder layer that determine its operations."""

    model: int
    mlp: int


class Try(NamedTuple):
    """One tolerance of a search."""

    tolerance: float
    reached: bool
    """Whether the recipe saves as much as was wanted."""

    leave: tuple[int, ...]
    """[layers]: the recipe."""


def search(entering: Callable[[float], Sequence[Sequence[int]]], reduction: float, widths: Widths) -> list[Try]:
    """All tolerances tried for one budget.

    Args:
        entering: maps a tolerance to the visual tokens that enter each layer of each sample, [samples][layers].
        reduction: share of the operations on visual tokens to save.
        widths: sizes of a decoder layer.
    """
    tries = []
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        tolerance = (low + high) / 2
        reached, leave = recipe_of(entering(tolerance), reduction, widths)
        tries.append(Try(tolerance, reached, leave))
        low, high = (low, tolerance) if reached else (tolerance, high)
    return tries


def best_of(tries: Sequence[Try], reduction: float) -> Try:
    """The last try that saves as much as was wanted.

    Raises:
        ConfigError: none does.
    """
    reached = [one for one in tries if one.reached]
    if not reached:
        raise ConfigError(
            f"no recipe saves {reduction:g} of the operations on visual tokens, because the first layer processes all "
            "of them. Expected a smaller reduction."
        )
    return reached[-1]


def recipe_of(entering: Sequence[Sequence[int]], reduction: float, widths: Widths) -> tuple[bool, tuple[int, ...]]:
    """The recipe of one tolerance; nothing more leaves once enough is saved.

    Args:
        entering: visual tokens that enter each layer of each sample, [samples][layers], for samples that go on losing
            tokens.
        reduction: share to save.
        widths: sizes of a decoder layer.

    Returns:
        Whether enough is saved, and the number of tokens that leave in each layer.
    """
    num_layers = len(entering[0])
    budget = (1 - reduction) * sum(num_layers * layer_operations(counts[0], counts[0], widths) for counts in entering)
    leave = [0] * num_layers
    so_far = 0
    for layer in range(num_layers):
        rest = sum((num_layers - layer) * layer_operations(counts[layer], counts[layer], widths) for counts in entering)
        if so_far + rest <= budget:
            return True, tuple(leave)
        if layer + 1 < num_layers:
            leave[layer] = sum(counts[layer] - counts[layer + 1] for counts in entering) // len(entering)
            so_far += sum(layer_operations(counts[layer], counts[layer + 1], widths) for counts in entering)
    return False, tuple(leave)


def layer_operations(before: int, after: int, widths: Widths) -> int:
    """Operations of a layer on visual tokens, counted as released: tokens that leave have no output and no MLP."""
    width, mlp = widths
    return 3 * before * width**2 + 2 * before**2 * width + after * width**2 + 3 * after * width * mlp
