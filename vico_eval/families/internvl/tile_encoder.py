"""Encoding of a batch's tiles, without repeating equal ones.

Benchmarks ask several questions about an image or video (POPE six, Video-MME three), pages and charts have empty tiles,
and the vision encoder takes most of a small model's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.models.internvl import InternVLVisionModel

from vico_eval.families.clock import seconds_on
from vico_eval.families.encoder_attention import LayerInput, PatchAttention
from vico_eval.families.family import Shown
from vico_eval.families.internvl.tiling import normalise
from vico_eval.families.portions import Portions
from vico_eval.methods.interface import ScoreSource

VISION_TILES = 64
"""Maximum number of tiles per encoder call, which bounds its memory, not the batch. Reduced if they don't fit."""


def encode_tiles(vision_tower: InternVLVisionModel, pixel_values: Tensor) -> Tensor:
    """Return vision tokens [tiles, 1 + h*w, C], class token first, of normalised tiles [tiles, 3, S, S]."""
    patch = vision_tower.embeddings.patch_embeddings.projection.weight
    output = vision_tower(pixel_values=pixel_values.to(device=patch.device, dtype=patch.dtype))
    return output.last_hidden_state  # type: ignore[no-any-return]


class Encoded(NamedTuple):
    """The encoder's output for tiles."""

    vit_tokens: Tensor
    """[tiles, 1 + h*w, C]."""

    attention: Mapping[ScoreSource, PatchAttention]
    """[tiles, h*w, ...] by source, if requested."""

    seconds: float
    """Time of encoding; 0 for tokens reused from another batch."""

    def take(self, places: Sequence[int]) -> Encoded:
        """Return the output for some tiles, in any order and with repetitions."""
        attention = {
            source: PatchAttention(found.scores[places], found.keys[places]) for source, found in self.attention.items()
        }
        return Encoded(self.vit_tokens[places], attention, self.seconds)


class TileEncoder:
    """A vision encoder for whole batches.

    Tokens never depend on earlier batches: they are only reused if a batch had the same tiles in the same order, so
    that they are equal to the last bit.
    """

    def __init__(
        self, vision_tower: InternVLVisionModel, sources: Iterable[ScoreSource] = (), *, is_shared: bool = False
    ) -> None:
        """
        Args:
            vision_tower: the vision encoder.
            sources: also return the attention of these sources.
            is_shared: several callers use each batch, one after the other.
        """
        self._vision_tower = vision_tower
        self._is_shared = is_shared
        self._portions = Portions(VISION_TILES, "tiles")
        self._kept: tuple[tuple[bytes, ...], Encoded] | None = None
        """Digests of the last batch's distinct tiles and their output, if they may be needed again."""

        self._layers = {
            source: LayerInput(
                vision_tower.encoder.layer[source.layer].attention, rows=source.rows, has_class_token=True
            )
            for source in sources
        }

    def __call__(self, batch: Sequence[Shown]) -> Encoded:
        """Return the encoder's output for all tiles of all requests, in order."""
        pictures = [picture for shown in batch for picture in shown.pictures]
        digests = [digest for picture in pictures for digest in picture.digests]
        if not digests:
            return Encoded(torch.zeros(0, 1, self._vision_tower.config.hidden_size), {}, 0.0)
        tiles = dict(zip(digests, (tile for picture in pictures for tile in picture.pieces), strict=True))
        encoded = self._encode_or_take_over(tuple(tiles), list(tiles.values()))
        # The only images of a batch are often asked about again by the next question.
        if not self._is_shared and len({shown.media for shown in batch if shown.media is not None}) > 1:
            self.forget()
        if len(digests) == len(tiles):
            return encoded
        places = {digest: place for place, digest in enumerate(tiles)}
        return encoded.take([places[digest] for digest in digests])

    def forget(self) -> None:
        """Release memory."""
        self._kept = None

    def _encode_or_take_over(self, digests: tuple[bytes, ...], tiles: Sequence[np.ndarray]) -> Encoded:
        if self._kept is not None and self._kept[0] == digests:
            return self._kept[1]._replace(seconds=0.0)
        self.forget()  # before the encoder needs memory
        encoded = self._encode(tiles)
        self._kept = digests, encoded
        return encoded

    def _encode(self, tiles: Sequence[np.ndarray]) -> Encoded:
        device: torch.device = next(self._vision_tower.parameters()).device
        stacked = torch.from_numpy(np.stack(tiles))
        started = seconds_on(device)
        chunks = self._portions.encode([1] * len(stacked), lambda span: self._encode_portion(stacked[span], device))
        attention = {
            source: PatchAttention(*map(torch.cat, zip(*(chunk.attention[source] for chunk in chunks), strict=True)))
            for source in self._layers
        }
        vit_tokens = torch.cat([chunk.vit_tokens for chunk in chunks])
        return Encoded(vit_tokens, attention, seconds_on(device) - started)

    def _encode_portion(self, tiles: Tensor, device: torch.device) -> Encoded:
        """Encode tiles [tiles, S, S, 3], uint8."""
        with ExitStack() as watched:
            for layer in self._layers.values():
                watched.enter_context(layer.watching())
            # Bytes are transferred to the device instead of floats.
            vit_tokens = encode_tiles(self._vision_tower, normalise(tiles.to(device)))
        return Encoded(vit_tokens, {source: layer.taken() for source, layer in self._layers.items()}, 0.0)
