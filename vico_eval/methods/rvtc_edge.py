"""RVTC by edge: an image gets no more tiles than whole tiles cover it, so that a small one is not blown up.

Place:   tiling.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression; the rule that its released code always uses.
"""

from __future__ import annotations

from vico_eval.families.internvl.tiling import edge_limit
from vico_eval.methods.parts import TilingSettings
from vico_eval.methods.registry import register
from vico_eval.methods.rvtc_ratio import RvtcRatio


@register("rvtc_edge")
class RvtcEdge(RvtcRatio):
    """Limits the tiles by the image's edges, counted in tiles."""

    def limit(self, width: int, height: int, settings: TilingSettings) -> int:
        """ceil(width / S) * ceil(height / S), at most `max_tiles`."""
        return edge_limit(width, height, settings.max_tiles, settings.tile_size)
