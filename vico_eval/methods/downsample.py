"""Downsample: an image becomes fewer tiles, as if it had come with fewer pixels.

Place:   resolution.
Source:  none; the control that every way of saving tokens has to beat at an equal number of tokens. Base weights do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ImageSize, ResolutionPart, TileLimits
from vico_eval.methods.shared.earlier_run import measured_share

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_KEEP_RATIO = 0.5


@dataclass(frozen=True, kw_only=True)
class DownsampleConfig:
    """How many tokens an image may take."""

    tile_keep_ratio: float | None = None
    """Share of an image's tiles, thumbnail included, that it is to have, in (0, 1]; 0.5 without ratio_from. Whole tiles
    come as near as they can, and an image or frame of one tile keeps it: the token account says what was reached."""

    ratio_from: str | None = None
    """Folder of an earlier run, say ViCO's, whose measured share of visual tokens becomes tile_keep_ratio."""

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise ConfigError(
                f"downsample got tile_keep_ratio={self.tile_keep_ratio}; expected the share of an image's tiles that "
                "stays, in (0, 1]."
            )

    @property
    def keep_ratio(self) -> float:
        """The share that counts."""
        return DEFAULT_KEEP_RATIO if self.tile_keep_ratio is None else self.tile_keep_ratio

    def resolved(self) -> Self:
        """With the share that the earlier run measured."""
        if self.ratio_from is None:
            return self
        return replace(self, tile_keep_ratio=measured_share(self.ratio_from, "tile_keep_ratio", self.tile_keep_ratio))


class Downsample(ResolutionPart):
    """Lowers the limit on an image's tiles until their number is the wanted share."""

    Config = DownsampleConfig
    config: DownsampleConfig

    def limits(self, image: ImageSize) -> TileLimits:
        """As many tiles as come nearest to the share."""
        budget = self.config.keep_ratio * image.num_tiles(_up_to(image, image.limits.max_tiles))
        # Largest first: of limits that lead to equally near numbers, the one that InternVL would choose freest.
        counts = range(image.limits.max_tiles, 0, -1)
        return min(
            (_up_to(image, max_tiles) for max_tiles in counts), key=lambda limits: abs(image.num_tiles(limits) - budget)
        )


def _up_to(image: ImageSize, max_tiles: int) -> TileLimits:
    return TileLimits(min(image.limits.min_tiles, max_tiles), max_tiles)
