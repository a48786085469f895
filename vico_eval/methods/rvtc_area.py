"""RVTC by area: an image gets no more tiles than it has pixels to fill, so that a small one is not blown up.

Place:   resolution.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression. By the paper's formula: it is not in the
         released code.
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
    """Area matching: no more tiles than the image has pixels for, ceil(W*H / S^2).

    Args:
        width: of the image, in pixels, at least 1.
        height: likewise.
        max_tiles: the limit that stays, thumbnail not counted.
        tile_size: side S of a tile in pixels.
    """
    return min(max_tiles, divide_up(width * height, tile_size * tile_size))
