"""RVTC by ratio: InternVL's own tiling under its name in InternVL-X's tables. The grid nearest to the image's shape.

Place:   tiling.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression, where it is the baseline; InternVL's rule.
Differs: one of the three rules. `rvtc_edge` and `rvtc_area` lower the limit on tiles first, the choice is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from vico_eval.families.internvl.tiling import TiledImage, tile_image
from vico_eval.methods.parts import TilingPart, TilingSettings
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class RvtcConfig:
    """Nothing to set: the limit on tiles is the checkpoint's or `max_tiles`."""


@register("rvtc_ratio")
class RvtcRatio(TilingPart):
    """Cuts an image into the grid nearest to its shape among those that a limit allows."""

    Config = RvtcConfig

    def limit(self, width: int, height: int, settings: TilingSettings) -> int:
        """Tiles that an image of width x height px may have, thumbnail not counted: here as many as it is allowed."""
        return settings.max_tiles

    def tile(self, image: Image.Image, settings: TilingSettings) -> TiledImage:
        """InternVL's grid under the limit; one tile where that is below `min_tiles`."""
        limit = self.limit(*image.size, settings)
        min_tiles, max_tiles = (settings.min_tiles, limit) if settings.min_tiles <= limit else (1, 1)
        return tile_image(
            image,
            min_tiles=min_tiles,
            max_tiles=max_tiles,
            tile_size=settings.tile_size,
            use_thumbnail=settings.use_thumbnail,
        )
