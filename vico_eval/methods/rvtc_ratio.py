"""RVTC by ratio: InternVL's own tiling, which chooses the grid nearest to the image's aspect ratio.

Place:   resolution.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression, in which this rule of InternVL's is the
         baseline.
Differs: one of three rules. `rvtc_edge` and `rvtc_area` lower the limit on tiles first; the choice of grid is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.methods.interface import ImageSize, ResolutionPart, TileLimits


@dataclass(frozen=True, kw_only=True)
class RvtcConfig:
    """No hyper-parameters: the limit on tiles is the checkpoint's or `max_tiles`."""


class RvtcRatio(ResolutionPart):
    """Cuts an image into the grid nearest to its aspect ratio among those that a limit on tiles allows."""

    Config = RvtcConfig

    def limit(self, image: ImageSize) -> int:
        """Maximum number of tiles of an image, thumbnail not counted: the limit that was given."""
        return image.limits.max_tiles

    def limits(self, image: ImageSize) -> TileLimits:
        """Grids up to the limit; a single tile if the limit is below `min_tiles`."""
        limit = self.limit(image)
        return TileLimits(image.limits.min_tiles, limit) if image.limits.min_tiles <= limit else TileLimits(1, 1)


def divide_up(number: int, divisor: int) -> int:
    """`number` / `divisor`, rounded up."""
    return -(-number // divisor)
