"""RVTC by ratio: InternVL's own tiling under its name in InternVL-X's tables. The grid nearest to the image's shape.

Place:   resolution.
Source:  InternVL-X (arXiv 2503.21307), resolution-wise token compression, where it is the baseline; InternVL's rule.
Differs: one of the three rules. `rvtc_edge` and `rvtc_area` lower the limit on tiles first, the choice is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.methods.interface import ImageSize, ResolutionPart, TileLimits


@dataclass(frozen=True, kw_only=True)
class RvtcConfig:
    """Nothing to set: the limit on tiles is the checkpoint's or `max_tiles`."""


class RvtcRatio(ResolutionPart):
    """Cuts an image into the grid nearest to its shape among those that a limit allows."""

    Config = RvtcConfig

    def limit(self, image: ImageSize) -> int:
        """Tiles that an image may have, thumbnail not counted: here as many as it is allowed."""
        return image.limits.max_tiles

    def limits(self, image: ImageSize) -> TileLimits:
        """Up to the limit; one tile where that is below `min_tiles`."""
        limit = self.limit(image)
        return TileLimits(image.limits.min_tiles, limit) if image.limits.min_tiles <= limit else TileLimits(1, 1)


def divide_up(number: int, divisor: int) -> int:
    """The smallest whole number of divisors that reaches `number`."""
    return -(-number // divisor)
