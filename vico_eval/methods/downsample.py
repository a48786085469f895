"""Downsample: each image becomes fewer tiles, as if it had fewer pixels.

Place:   resolution.
Source:  none; a control that every method of saving tokens has to beat at an equal number of tokens. It runs on base
         weights.
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
    """Tile budget of an image."""

    tile_keep_ratio: float | None = None
    """Target share of an image's tiles, thumbnail included, in (0, 1]; 0.5 unless ratio_from is given. The nearest
    whole number of tiles is used, and an image or frame of one tile keeps it; the token account records the share
    reached."""

    ratio_from: str | None = None
    """Folder of an earlier run, for example of ViCO, whose measured share of visual tokens becomes tile_keep_ratio."""

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise ConfigError(
                f"downsample got tile_keep_ratio={self.tile_keep_ratio}; expected the share of an image's tiles that "
                "stays, in (0, 1]."
            )

    @property
    def keep_ratio(self) -> float:
        """The share in effect."""
        return DEFAULT_KEEP_RATIO if self.tile_keep_ratio is None else self.tile_keep_ratio

    def resolved(self) -> Self:
        """The configuration with the share that the earlier run measured."""
        if self.ratio_from is None:
            return self
        return replace(self, tile_keep_ratio=measured_share(self.ratio_from, "tile_keep_ratio", self.tile_keep_ratio))


class Downsample(ResolutionPart):
    """Lowers the limit on an image's tiles until their number is nearest to the target share."""

    Config = DownsampleConfig
    config: DownsampleConfig

    def limits(self, image: ImageSize) -> TileLimits:
        """The limits whose number of tiles is nearest to the target."""
        budget = self.config.keep_ratio * image.num_tiles(_up_to(image, image.limits.max_tiles))
        # Largest first: among limits with equally near numbers, the one that leaves InternVL the most grids.
        counts = range(image.limits.max_tiles, 0, -1)
        return min(
            (_up_to(image, max_tiles) for max_tiles in counts), key=lambda limits: abs(image.num_tiles(limits) - budget)
        )


def _up_to(image: ImageSize, max_tiles: int) -> TileLimits:
    return TileLimits(min(image.limits.min_tiles, max_tiles), max_tiles)
