"""LVTC: early layers process few visual tokens, to which image projections are added; the last layers process all.

Place:   decoder. Before a few layers, a further projection of each tile is added to its visual tokens. Before one later
         layer, the tile's tokens are upsampled, a high-resolution projection is added, and the result replaces them.
Needs:   a checkpoint trained with LVTC.
Source:  InternVL-X (arXiv 2503.21307), section 3.2 and algorithm 1. LVTC was not released; this is our reading of the
         paper.
Differs: where the paper is silent, these choices are ours: nearest or bilinear upsampling; how many projections are
         added, and before which layers; consecutive positions over the tokens of each stage, with its own rotary table
         and causal mask; text that keeps its order around the image (the paper's pseudo-code puts the image first); and
         upsampling of every tile on its own, the thumbnail included. The settings come from the checkpoint (`lvtc` in
         its config.json).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.methods.interface import DecoderPart, LayerState, ModelFacts, NextTokens

UPSAMPLING = ("nearest", "bilinear")


@dataclass(frozen=True, kw_only=True)
class LVTCSettings:
    """Layers and sizes of LVTC; part of a checkpoint's configuration, because its weights are trained for them."""

    expand_before: int
    """Layer, counted from 0, before which tiles are upsampled (the paper's k, "the 3/4 layer")."""

    first_insertion: int
    """Layer before which the first further low-resolution (LR) projection is added (s; the paper gives no value)."""

    insertion_interval: int
    """Number of layers from one insertion to the next (i; the paper gives no value)."""

    num_low_resolution: int = 3
    """Number of LR projections, including the connector's own (T; the paper gives no value). 1 disables insertions."""

    high_block: int = 1
    """Side of the square of vision tokens that forms one token of the high-resolution (HR) projection (M2)."""

    upsample: str = "nearest"
    """nearest, or bilinear (corners not aligned, in float32). The paper does not specify it; FPN, which it names, uses
    nearest."""

    def __post_init__(self) -> None:
        least = {"expand_before": 0, "first_insertion": 0, "insertion_interval": 1, "num_low_resolution": 1}
        for name, minimum in {**least, "high_block": 1}.items():
            value = getattr(self, name)
            if type(value) is not int or value < minimum:
                raise ConfigError(f"lvtc got {name}={value!r}; expected an integer of at least {minimum}.")
        if self.upsample not in UPSAMPLING:
            raise ConfigError(f"lvtc got upsample={self.upsample!r}; expected {' or '.join(UPSAMPLING)}.")
        if self.insertions and self.insertions[-1] >= self.expand_before:
            raise ConfigError(
                f"lvtc got insertions before layers {', '.join(map(str, self.insertions))} and the expansion before "
                f"layer {self.expand_before}; expected every insertion before the expansion. Lower num_low_resolution, "
                "first_insertion or insertion_interval, or expand later."
            )

    @classmethod
    def defaults(cls, num_layers: int, **settings: Any) -> LVTCSettings:
        """Settings for a decoder of L layers; unless given, k = 3L/4 - 1 as in the paper and s = i = L/4 (ours)."""
        quarter = num_layers // 4
        given = {"expand_before": 3 * num_layers // 4 - 1, "first_insertion": quarter, "insertion_interval": quarter}
        return cls(**(given | settings))

    @property
    def insertions(self) -> tuple[int, ...]:
        """The layers before which a further LR projection is added, in order."""
        return tuple(self.first_insertion + n * self.insertion_interval for n in range(self.num_low_resolution - 1))

    def check(self, *, num_layers: int, vit_grid: int, low_block: int) -> None:
        """Raises ConfigError unless a model of these sizes can run the settings.

        Args:
            num_layers: layers of the decoder. An expansion after the last one would leave trained weights unused.
            vit_grid: vision tokens along a tile's side.
            low_block: side of the square of vision tokens that forms one visual token (M1).
        """
        if self.expand_before >= num_layers:
            raise ConfigError(
                f"lvtc got expand_before={self.expand_before}, but the decoder has {num_layers} layers; "
                f"expected 0 to {num_layers - 1}."
            )
        if vit_grid % low_block or vit_grid % self.high_block or low_block % self.high_block:
            raise ConfigError(
                f"lvtc can't upsample a tile of {vit_grid} x {vit_grid} vision tokens from squares of {low_block} "
                f"(1 / downsample_ratio) to squares of {self.high_block} (high_block); expected both to divide "
                f"{vit_grid}, and the second to divide the first."
            )


@dataclass(frozen=True, kw_only=True)
class LVTCConfig:
    """No hyper-parameters: the weights are trained for one setting, which the checkpoint holds."""


class LVTC(DecoderPart):
    """Adds projections and expands tiles by the checkpoint's settings; acts only when bound to its model."""

    Config = LVTCConfig
    renumbers = True
    runs = frozenset({"lvtc"})
    needs_vit_tokens = True
    needs_whole_tiles = True

    def __init__(self, config: LVTCConfig, facts: ModelFacts | None = None, projectors: Any = None) -> None:
        super().__init__(config)
        self._settings = None if facts is None else settings_of(facts)
        self._num_tokens = 0 if facts is None or facts.tile is None else facts.tile.num_tokens
        self._projectors = projectors

    def check(self, facts: ModelFacts) -> None:
        """Require a checkpoint with LVTC's projectors, and settings that its decoder can run."""
        if "lvtc" not in facts.parts:
            raise CheckpointError(
                f"checkpoint {facts.checkpoint!r} has no LVTC projectors (its config.json names no `lvtc`), and method "
                "'lvtc' needs them. Load a checkpoint that was trained with LVTC, or run `vanilla`."
            )
        settings_of(facts)

    def bind(self, facts: ModelFacts, modules: Mapping[str, Any]) -> LVTC:
        """The part with the model's projectors and settings."""
        self.check(facts)
        return LVTC(self.config, facts, modules["lvtc"])

    @property
    def settings(self) -> LVTCSettings:
        """Settings of the model that the part is bound to."""
        assert self._settings is not None, "use_decoder_part() binds"
        return self._settings

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers before which projections are added, and the one before which tiles expand."""
        return {*self.settings.insertions, self.settings.expand_before}

    def project(self, layer: int, vit_tokens: Tensor) -> Tensor:
        """The projection that is added before a layer, [tiles, n, D]."""
        assert self._projectors is not None
        projector = (
            self._projectors.high_resolution
            if layer == self.settings.expand_before
            else self._projectors.low_resolution[self.settings.insertions.index(layer)]
        )
        projected: Tensor = projector(vit_tokens)
        return projected

    def next_tokens(self, state: LayerState) -> NextTokens:
        """The visual tokens in their places, with a projection added; before the expansion layer, upsampled first."""
        if state.projected is None:
            raise RuntimeError(f"method 'lvtc' got no vision tokens of {state.key}; expected them with the prompt")
        projected = state.projected.to(state.hidden)
        tokens = state.hidden[state.is_visual]
        tiles, num_high, _ = projected.shape
        if len(tokens) != tiles * self._num_tokens:
            raise RuntimeError(
                f"{state.key} has {len(tokens)} visual tokens for {tiles} tiles; expected every tile at full length, "
                f"{self._num_tokens} tokens"
            )
        source = expanded_source(state.is_visual, self._num_tokens, num_high)
        # An insertion keeps the number of tokens, and upsampling to the same number changes nothing.
        new = upsample(tokens.unflatten(0, (tiles, -1)), num_high, self.settings.upsample) + projected
        return NextTokens(source, new.flatten(0, 1))

    def num_joining(self, num_visual: int, facts: ModelFacts) -> int:
        """Number of tokens that the expansion adds."""
        assert facts.tile is not None, "check() has seen tiles"
        expanded = (facts.tile.vision_side // settings_of(facts).high_block) ** 2
        return num_visual // facts.tile.num_tokens * (expanded - facts.tile.num_tokens)


def settings_of(facts: ModelFacts) -> LVTCSettings:
    """LVTC settings of a checkpoint.

    Raises:
        CheckpointError: the settings are invalid, or this model can't run them.
    """
    assert facts.tile is not None, "LVTC's projectors work on tiles"
    try:
        settings = LVTCSettings(**facts.parts["lvtc"])
        settings.check(
            num_layers=facts.num_layers,
            vit_grid=facts.tile.vision_side,
            low_block=facts.tile.vision_side // facts.tile.visual_side,
        )
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"config.json of {facts.checkpoint!r} can't be used: {error}") from error
    return settings


def upsample(tokens: Tensor, num_tokens: int, mode: str) -> Tensor:
    """Each tile's square of visual tokens on a finer square; no information passes between tiles.

    Args:
        tokens: [tiles, n, D], row by row.
        num_tokens: n', tokens of the finer square.
        mode: nearest or bilinear.

    Returns:
        [tiles, n', D], row by row.
    """
    side, finer = isqrt(tokens.shape[1]), isqrt(num_tokens)
    grid = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [tiles, D, rows, columns]
    if mode == "nearest":
        grid = interpolate(grid, size=(finer, finer), mode="nearest")
    else:
        grid = interpolate(grid.float(), size=(finer, finer), mode="bilinear", align_corners=False).to(tokens)
    return grid.flatten(2).transpose(1, 2)


def expanded_source(is_visual: Tensor, num_low: int, num_high: int) -> Tensor:
    """Source of each token after an expansion: text keeps its place, and new tokens take the place of each tile's.

    Args:
        is_visual: [tokens], bool; `num_low` visual tokens per tile, tile after tile.
        num_low: visual tokens per tile before the expansion.
        num_high: visual tokens per tile after it.

    Returns:
        [tokens + tiles * (num_high - num_low)], int64: index of a text token, -1 for a new one.
    """
    repeats = (~is_visual).long()
    # The first token of a tile is repeated for all new ones; the others are repeated zero times.
    repeats[is_visual.nonzero()[::num_low, 0]] = num_high
    source = torch.arange(len(is_visual), device=is_visual.device).repeat_interleave(repeats)
    return source.masked_fill(is_visual[source], -1)
