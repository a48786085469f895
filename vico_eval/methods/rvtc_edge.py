"""RVTC by edge: an image gets no more tiles than it takes to cover it, so that small images are not enlarged.

Place:   resolution.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression; the rule that its released code always uses.
"""

from __future__ import annotations

from vico_eval.methods.interface import ImageSize
from vico_eval.methods.rvtc_ratio import RvtcRatio, divide_up


class RvtcEdge(RvtcRatio):
    """Limits the tiles by the image's edges, counted in tiles."""

    def limit(self, image: ImageSize) -> int:
        """ceil(width / S) * ceil(height / S), at most `max_tiles`."""
        return edge_limit(image.width, image.height, image.limits.max_tiles, image.tile_size)


def edge_limit(width: int, height: int, max_tiles: int, tile_size: int) -> int:
    """Limit by edges: no more tiles than it takes to cover the image, ceil(W/S) * ceil(H/S).

    Args:
        width: width of the image in pixels, at least 1.
        height: height of the image in pixels, at least 1.
        max_tiles: limit that holds in any case, thumbnail not counted.
        tile_size: side S of a tile in pixels.
    """
    return min(max_tiles, divide_up(width, tile_size) * divide_up(height, tile_size))
