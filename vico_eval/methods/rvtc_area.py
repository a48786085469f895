"""RVTC by area: an image gets no more tiles than it has pixels to fill, so that a small one is not blown up.

Place:   tiling.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression. By the paper's formula: it is not in the
         released code.
"""

from __future__ import annotations

from vico_eval.families.internvl.tiling import area_limit
from vico_eval.methods.parts import TilingSettings
from vico_eval.methods.registry import register
from vico_eval.methods.rvtc_ratio import RvtcRatio


@register("rvtc_area")
class RvtcArea(RvtcRatio):
    """Limits the tiles by the image's area, counted in tiles."""

    def limit(self, width: int, height: int, settings: TilingSettings) -> int:
        """ceil(width * height / S^2), at most `max_tiles`."""
        return area_limit(width, height, settings.max_tiles, settings.tile_size)
