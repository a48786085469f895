"""Vision tokens of a batch's tiles, equal ones encoded once.

Benchmarks ask several questions about a picture or a video (POPE six, Video-MME three), pages and charts have empty
tiles, and of a small model's time the vision encoder takes the most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers.models.internvl import InternVLVisionModel

from vico_eval.engine.preprocess import Prepared
from vico_eval.families.internvl.modeling import encode_tiles
from vico_eval.families.internvl.tiling import normalise

VISION_TILES = 64
"""Tiles that go through the vision encoder at once; bounds its memory, not the batch."""


class TileEncoder:
    """A vision encoder in front of whole batches.

    Tokens never depend on the batches before: of another batch only those are taken over that were encoded alone, as
    they would be now.
    """

    def __init__(self, vision_tower: InternVLVisionModel) -> None:
        self._vision_tower = vision_tower
        self._kept: tuple[str, Tensor] | None = None
        """Digest and tokens of the last batch's pictures, where all its requests were about the same."""

    def __call__(self, batch: Sequence[Prepared]) -> Tensor:
        """Vision tokens [tiles, 1 + h*w, C] of every tile of every request, in order."""
        digests = [digest for prepared in batch for digest in prepared.tile_digests]
        if not digests:
            return torch.zeros(0, 1, self._vision_tower.config.hidden_size)
        tiles = dict(zip(digests, (tile for prepared in batch for tile in prepared.tiles), strict=True))
        pictures = {prepared.media for prepared in batch if prepared.media is not None}
        if len(pictures) > 1:
            self.forget()
            encoded = self._encode(list(tiles.values()))
        else:
            encoded = self._encode_or_take_over(pictures.pop(), list(tiles.values()))
        if len(digests) == len(tiles):
            return encoded
        places = {digest: place for place, digest in enumerate(tiles)}
        return encoded[[places[digest] for digest in digests]]

    def forget(self) -> None:
        """Let go of what is kept, for its memory."""
        self._kept = None

    def _encode_or_take_over(self, media: str, tiles: Sequence[np.ndarray]) -> Tensor:
        if self._kept is None or self._kept[0] != media:
            self.forget()  # before the encoder needs memory
            self._kept = media, self._encode(tiles)
        return self._kept[1]

    def _encode(self, tiles: Sequence[np.ndarray]) -> Tensor:
        device: torch.device = next(self._vision_tower.parameters()).device
        together = torch.from_numpy(np.stack(tiles))
        # Bytes travel to the device, not floats.
        return torch.cat(
            [
                encode_tiles(self._vision_tower, normalise(chunk.to(device)))
                for chunk in torch.split(together, VISION_TILES)
            ]
        )
