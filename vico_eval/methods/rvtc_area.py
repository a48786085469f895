"""RVTC by area: an image gets no more tiles than its pixels can fill, so that small images are not enlarged.

Place:   resolution.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression. Follows the paper's formula, which the
         released code does not contain.
"""

from __future__ import annotations

from vico_eval.methods.interface import ImageSize
from vico_eval.methods.rvtc_ratio import RvtcRatio, divide_up


class RvtcArea(RvtcRatio):
    """Limits the tiles by the image's area, counted in tiles."""

    def limit(self, image: ImageSize) -> int:
        """ceil(width * height / S^2), at most `max_tiles`."""
        return area_limit(image.width, image.height, image.limits.max_tiles, image.tile_size)


def area_limit(width: int, height: int, max_tiles: int, tile_size: int) -> int:
    """Limit by area: no more tiles than the image has pixels for, ceil(W*H / S^2).

    Args:
        width: width of the image in pixels, at least 1.
        height: height of the image in pixels, at least 1.
        max_tiles: limit that holds in any case, thumbnail not counted.
        tile_size: side S of a tile in pixels.
    """
    return min(max_tiles, divide_up(width * height, tile_size * tile_size))
