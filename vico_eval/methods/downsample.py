"""Downsample: an image becomes fewer tiles, as if it had come with fewer pixels.

Place:   tiling.
Source:  none; the control that every way of saving tokens has to beat at an equal number of tokens. Base weights do.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.tiling import TiledImage, tile_grid, tile_image
from vico_eval.methods.earlier_run import take_measured_share
from vico_eval.methods.parts import TilingPart, TilingSettings
from vico_eval.methods.registry import register

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
        if self.ratio_from is not None:
            take_measured_share(self, "tile_keep_ratio", self.ratio_from)
        if not 0 < self.keep_ratio <= 1:
            raise ConfigError(
                f"downsample got tile_keep_ratio={self.tile_keep_ratio}; expected the share of an image's tiles that "
                "stays, in (0, 1]."
            )

    @property
    def keep_ratio(self) -> float:
        """The share that counts."""
        return DEFAULT_KEEP_RATIO if self.tile_keep_ratio is None else self.tile_keep_ratio


@register("downsample")
class Downsample(TilingPart):
    """Lowers the limit on an image's tiles until their number is the wanted share."""

    Config = DownsampleConfig
    config: DownsampleConfig

    def tile(self, image: Image.Image, settings: TilingSettings) -> TiledImage:
        """InternVL's grid under the lower limit."""
        budget = self.config.keep_ratio * _num_tiles(image, settings, settings.max_tiles)
        # Largest first: of limits that lead to equally near numbers, the one that InternVL would choose freest.
        limits = range(settings.max_tiles, 0, -1)
        max_tiles = min(limits, key=lambda limit: abs(_num_tiles(image, settings, limit) - budget))
        return tile_image(
            image,
            min_tiles=min(settings.min_tiles, max_tiles),
            max_tiles=max_tiles,
            tile_size=settings.tile_size,
            use_thumbnail=settings.use_thumbnail,
        )


def _num_tiles(image: Image.Image, settings: TilingSettings, max_tiles: int) -> int:
    columns, rows = tile_grid(
        *image.size,
        min_tiles=min(settings.min_tiles, max_tiles),
        max_tiles=max_tiles,
        tile_size=settings.tile_size,
    )
    tiles = columns * rows
    return tiles + 1 if settings.use_thumbnail and tiles > 1 else tiles
