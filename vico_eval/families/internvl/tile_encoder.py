"""Vision tokens of a batch's tiles, equal ones encoded once.

Benchmarks ask several questions about a picture or a video (POPE six, Video-MME three), pages and charts have empty
tiles, and of a small model's time the vision encoder takes the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.models.internvl import InternVLVisionModel

from vico_eval.families.encoder_attention import LayerInput, PatchAttention
from vico_eval.families.family import Shown
from vico_eval.families.internvl.tiling import normalise
from vico_eval.methods.interface import ScoreSource

VISION_TILES = 64
"""Tiles that go through the vision encoder at once; bounds its memory, not the batch."""


def encode_tiles(vision_tower: InternVLVisionModel, pixel_values: Tensor) -> Tensor:
    """Vision tokens [tiles, 1 + h*w, C], class token first, of normalised tiles [tiles, 3, S, S]."""
    patch = vision_tower.embeddings.patch_embeddings.projection.weight
    output = vision_tower(pixel_values=pixel_values.to(device=patch.device, dtype=patch.dtype))
    return output.last_hidden_state  # type: ignore[no-any-return]


class Encoded(NamedTuple):
    """What the encoder makes of tiles."""

    vit_tokens: Tensor
    """[tiles, 1 + h*w, C]."""

    attention: PatchAttention | None = None
    """[tiles, h*w, ...], where a layer's was asked for."""

    def take(self, places: Sequence[int]) -> Encoded:
        """Those of some tiles, in another order or more than once."""
        attention = self.attention
        if attention is not None:
            attention = PatchAttention(attention.scores[places], attention.keys[places])
        return Encoded(self.vit_tokens[places], attention)


class TileEncoder:
    """A vision encoder in front of whole batches.

    Tokens never depend on the batches before: of another batch only those are taken over that were encoded alone, as
    they would be now.
    """

    def __init__(self, vision_tower: InternVLVisionModel, source: ScoreSource | None = None) -> None:
        """`source` says whose attention is wanted as well."""
        self._vision_tower = vision_tower
        self._kept: tuple[str, Encoded] | None = None
        """Digest and tokens of the last batch's pictures, where all its requests were about the same."""

        self._layer = None
        if source is not None:
            attention = vision_tower.encoder.layer[source.layer].attention
            self._layer = LayerInput(attention, rows=source.rows, has_class_token=True)

    def __call__(self, batch: Sequence[Shown]) -> Encoded:
        """What is made of every tile of every request, in order."""
        pictures = [picture for shown in batch for picture in shown.pictures]
        digests = [digest for picture in pictures for digest in picture.digests]
        if not digests:
            return Encoded(torch.zeros(0, 1, self._vision_tower.config.hidden_size))
        tiles = dict(zip(digests, (tile for picture in pictures for tile in picture.pieces), strict=True))
        media = {shown.media for shown in batch if shown.media is not None}
        if len(media) > 1:
            self.forget()
            encoded = self._encode(list(tiles.values()))
        else:
            encoded = self._encode_or_take_over(media.pop(), list(tiles.values()))
        if len(digests) == len(tiles):
            return encoded
        places = {digest: place for place, digest in enumerate(tiles)}
        return encoded.take([places[digest] for digest in digests])

    def forget(self) -> None:
        """Let go of what is kept, for its memory."""
        self._kept = None

    def _encode_or_take_over(self, media: str, tiles: Sequence[np.ndarray]) -> Encoded:
        if self._kept is None or self._kept[0] != media:
            self.forget()  # before the encoder needs memory
            self._kept = media, self._encode(tiles)
        return self._kept[1]

    def _encode(self, tiles: Sequence[np.ndarray]) -> Encoded:
        device: torch.device = next(self._vision_tower.parameters()).device
        together = torch.from_numpy(np.stack(tiles))
        with nullcontext() if self._layer is None else self._layer.watching():
            # Bytes travel to the device, not floats.
            vit_tokens = torch.cat(
                [
                    encode_tiles(self._vision_tower, normalise(chunk.to(device)))
                    for chunk in torch.split(together, VISION_TILES)
                ]
            )
        return Encoded(vit_tokens, None if self._layer is None else self._layer.taken())
