"""LVTC's projectors and settings: visual tokens that change and join between the decoder's layers.

Source: InternVL-X, section 3.2 and algorithm 1. Its authors released no code of it, so this is our reading of the
        paper; what the paper leaves open is a setting here and says so.

Every tile enters the decoder as the connector's N1 x N1 visual tokens, the paper's low-resolution (LR) projection V_0.
Before a few layers another LR projection of the tile is added to them; before one later layer they are upsampled to
N2 x N2 and the high-resolution (HR) projection is added.

Shapes: tiles = tiles in the call; h = w = vision tokens along a tile's side; C = vision width; D = decoder width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.connectors import HighConnector

UPSAMPLING = ("nearest", "bilinear")


@dataclass(frozen=True, kw_only=True)
class LVTCSettings:
    """Where what joins; part of a checkpoint's configuration, because its weights are trained for it."""

    expand_before: int
    """Layer, counted from 0, before which tiles are upsampled (the paper's k, "the 3/4 layer")."""

    first_insertion: int
    """Layer before which the first further LR projection is added (s; the paper gives no value)."""

    insertion_interval: int
    """Layers from one insertion to the next (i; the paper gives no value)."""

    num_low_resolution: int = 3
    """LR projections, the connector's own included (T; the paper gives no value). 1 switches insertions off."""

    high_block: int = 1
    """Side of the square of vision tokens that one token of the HR projection is made of (M2)."""

    upsample: str = "nearest"
    """nearest, or bilinear (corners not aligned, in float32). The paper does not say; FPN, which it names, takes the
    nearest."""

    def __post_init__(self) -> None:
        least = {"expand_before": 0, "first_insertion": 0, "insertion_interval": 1, "num_low_resolution": 1}
        for name, minimum in {**least, "high_block": 1}.items():
            value = getattr(self, name)
            if type(value) is not int or value < minimum:
                raise ConfigError(f"lvtc got {name}={value!r}; expected a whole number of at least {minimum}.")
        if self.upsample not in UPSAMPLING:
            raise ConfigError(f"lvtc got upsample={self.upsample!r}; expected {' or '.join(UPSAMPLING)}.")
        if self.insertions and self.insertions[-1] >= self.expand_before:
            raise ConfigError(
                f"lvtc is to insert before layers {', '.join(map(str, self.insertions))} and to expand before layer "
                f"{self.expand_before}: an insertion would meet or follow the expansion. Lower num_low_resolution, "
                "first_insertion or insertion_interval, or expand later."
            )

    @classmethod
    def defaults(cls, num_layers: int, **settings: Any) -> LVTCSettings:
        """Settings for a decoder of so many layers: k = 3L/4 - 1 as in the paper, s = i = L/4 (ours), unless given."""
        quarter = num_layers // 4
        given = {"expand_before": 3 * num_layers // 4 - 1, "first_insertion": quarter, "insertion_interval": quarter}
        return cls(**(given | settings))

    @property
    def insertions(self) -> tuple[int, ...]:
        """The layers before which a further LR projection is added, in order."""
        return tuple(self.first_insertion + n * self.insertion_interval for n in range(self.num_low_resolution - 1))

    def check(self, *, num_layers: int, vit_grid: int, low_block: int) -> None:
        """Raises ConfigError unless a model of these sizes can run them.

        Args:
            num_layers: of the decoder. An expansion behind the last one would leave trained weights unused.
            vit_grid: vision tokens along a tile's side.
            low_block: side of the square of them that one visual token is made of (M1).
        """
        if self.expand_before >= num_layers:
            raise ConfigError(
                f"lvtc is to expand before layer {self.expand_before} and the decoder has {num_layers} layers; "
                f"expected 0 to {num_layers - 1}."
            )
        if vit_grid % low_block or vit_grid % self.high_block or low_block % self.high_block:
            raise ConfigError(
                f"lvtc can't upsample a tile of {vit_grid} x {vit_grid} vision tokens from squares of {low_block} "
                f"(1 / downsample_ratio) to squares of {self.high_block} (high_block); expected both to divide "
                f"{vit_grid}, and the second to divide the first."
            )


class LVTCProjectors(nn.Module):
    """The projectors beyond the connector: T - 1 of low resolution and one of high resolution.

    Args:
        settings: how many and where.
        low_resolution: makes a new projector of the connector's kind; each has its own weights.
        vision_width: C.
        decoder_width: D.
        version: of the pixel shuffle, as the connector's.
    """

    def __init__(
        self,
        settings: LVTCSettings,
        low_resolution: Callable[[], nn.Module],
        vision_width: int,
        decoder_width: int,
        version: str = "v2",
    ) -> None:
        super().__init__()
        self.low_resolution = nn.ModuleList(low_resolution() for _ in settings.insertions)
        self.high_resolution = HighConnector(vision_width, decoder_width, settings.high_block, version)

    def zero_outputs(self) -> None:
        """Let training start from the decoder without them: every projection is zero, upsampling remains.

        Raises:
            ConfigError: a projector of another kind than InternVL's, whose output no single layer makes.
        """
        for projector in (*self.low_resolution, self.high_resolution):
            if not isinstance(projector, HighConnector):
                raise ConfigError(
                    f"a projection of {type(projector).__name__} can't start at zero; expected InternVL's connector."
                )
            nn.init.zeros_(projector.linear_2.weight)
            nn.init.zeros_(projector.linear_2.bias)


def upsample(tokens: Tensor, num_tokens: int, mode: str) -> Tensor:
    """Every tile's square of visual tokens on a finer square; nothing passes from one tile to another.

    Args:
        tokens: [tiles, n, D], row by row.
        num_tokens: n' of the finer square.
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
    """Where the tokens after an expansion come from: text from its place, every tile's tokens anew in the tile's place.

    Args:
        is_visual: [tokens], bool; `num_low` visual tokens a tile, tile after tile.
        num_low: visual tokens of a tile before.
        num_high: and after.

    Returns:
        [tokens + tiles * (num_high - num_low)], int64: index of a text token, -1 for a new one.
    """
    repeats = (~is_visual).long()
    # The first token of a tile holds the place of all of them.
    repeats[is_visual.nonzero()[::num_low, 0]] = num_high
    source = torch.arange(len(is_visual), device=is_visual.device).repeat_interleave(repeats)
    return source.masked_fill(is_visual[source], -1)
