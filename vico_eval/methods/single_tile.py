"""Vanilla w/o dynamic resolution: every image becomes one tile, whatever its size.

Place:   resolution.
Source:  ViCO (arXiv 2510.12793), Table 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.methods.interface import ImageSize, ResolutionPart, TileLimits


@dataclass(frozen=True, kw_only=True)
class SingleTileConfig:
    """No hyper-parameters."""


class SingleTile(ResolutionPart):
    """Resizes the whole image to one tile."""

    Config = SingleTileConfig

    def limits(self, image: ImageSize) -> TileLimits:
        """A grid of one tile."""
        return TileLimits(1, 1)
