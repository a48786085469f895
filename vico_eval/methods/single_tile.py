"""Vanilla w/o dynamic resolution: an image is one tile, whatever its size.

Place:   tiling.
Source:  ViCO (arXiv 2510.12793), Table 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from vico_eval.families.internvl.tiling import TiledImage, tile_image
from vico_eval.methods.parts import TilingPart, TilingSettings
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class SingleTileConfig:
    """Nothing to set."""


@register("single_tile")
class SingleTile(TilingPart):
    """Resizes the whole image to one tile."""

    Config = SingleTileConfig

    def tile(self, image: Image.Image, settings: TilingSettings) -> TiledImage:
        """A grid of one tile."""
        return tile_image(image, max_tiles=1, tile_size=settings.tile_size)
