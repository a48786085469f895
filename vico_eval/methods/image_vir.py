"""ViCO (Image-level ViR): one routing decision per image, applied to all its tiles.

Place:   connector.
Needs:   a router and a low connector (a Flash checkpoint).
Source:  ViCO (arXiv 2510.12793), Table 3.
Differs: a checkpoint without an image-level router (every released one) uses the mean of an image's tile scores. An
         image is compressed if its score is at least the absolute threshold, because a quantile over the images of a
         request would never compress a single image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vico_eval.methods.interface import ConnectorPart, ModelFacts, RequestTiles, need_router
from vico_eval.methods.shared.thresholds import check_thresholds


@dataclass(frozen=True, kw_only=True)
class ImageViRConfig:
    """Threshold on the image's score."""

    absolute_threshold: float | None = None
    """Compress an image if its mean score is at least this, in [0, 1]; None uses the checkpoint's value."""

    def __post_init__(self) -> None:
        check_thresholds(None, self.absolute_threshold)


class ImageViR(ConnectorPart):
    """Routes each image by the mean score of its tiles."""

    Config = ImageViRConfig
    config: ImageViRConfig

    def check(self, facts: ModelFacts) -> None:
        """Require a low connector and a router."""
        need_router(facts, "image_vir")

    def scored_by(self, facts: ModelFacts) -> str:
        """The image-level router if the checkpoint has one, otherwise the tile router."""
        return "image_router" if "image_router" in facts.parts else "router"

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Compress the tiles of images whose mean score reaches the threshold; [tiles], bool."""
        assert tiles.p_compress is not None
        absolute = self.config.absolute_threshold
        if absolute is None:
            absolute = facts.parts["router"]["image_threshold"]
        if absolute is None:
            absolute = facts.parts["router"]["absolute_threshold"]
        tile_image = tiles.tile_image.to(tiles.p_compress.device)
        scores = tiles.p_compress.float()
        num_images = int(tile_image.max()) + 1 if len(tile_image) else 0
        totals = torch.zeros(num_images, device=scores.device).index_add_(0, tile_image, scores)
        means = totals / torch.bincount(tile_image, minlength=num_images).clamp(min=1)
        return (means >= absolute)[tile_image]
