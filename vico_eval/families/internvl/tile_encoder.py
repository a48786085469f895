"""Vision tokens of a batch's tiles, equal ones encoded once.

Benchmarks ask several questions about a picture or a video (POPE six, Video-MME three), pages and charts have empty
tiles, and of a small model's time the vision encoder takes the most.
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
"""Tiles that go through the vision encoder at once; bounds its memory, not the batch. Where they don't fit, fewer."""


def encode_tiles(vision_tower: InternVLVisionModel, pixel_values: Tensor) -> Tensor:
    """Vision tokens [tiles, 1 + h*w, C], class token first, of normalised tiles [tiles, 3, S, S]."""
    patch = vision_tower.embeddings.patch_embeddings.projection.weight
    output = vision_tower(pixel_values=pixel_values.to(device=patch.device, dtype=patch.dtype))
    return output.last_hidden_state  # type: ignore[no-any-return]


class Encoded(NamedTuple):
    """What the encoder makes of tiles."""

    vit_tokens: Tensor
    """[tiles, 1 + h*w, C]."""

    attention: Mapping[ScoreSource, PatchAttention]
    """[tiles, h*w, ...] by where it comes from: those that were asked for."""

    seconds: float
    """What encoding took; 0 of tokens that are taken over from another batch."""

    def take(self, places: Sequence[int]) -> Encoded:
        """Those of some tiles, in another order or more than once."""
        attention = {
            source: PatchAttention(found.scores[places], found.keys[places]) for source, found in self.attention.items()
        }
        return Encoded(self.vit_tokens[places], attention, self.seconds)


class TileEncoder:
    """A vision encoder in front of whole batches.

    Tokens never depend on the batches before: another batch's are taken over only where it had the same tiles in the
    same order, so that they are what they would be now.
    """

    def __init__(
        self, vision_tower: InternVLVisionModel, sources: Iterable[ScoreSource] = (), *, is_shared: bool = False
    ) -> None:
        """
        Args:
            vision_tower: encodes.
            sources: whose attention is wanted as well.
            is_shared: whether several ask about each batch, one after the other.
        """
        self._vision_tower = vision_tower
        self._is_shared = is_shared
        self._portions = Portions(VISION_TILES, "tiles")
        self._kept: tuple[tuple[bytes, ...], Encoded] | None = None
        """Digests of the last batch's tiles, each once, and what was made of them; where somebody may want it again."""

        self._layers = {
            source: LayerInput(
                vision_tower.encoder.layer[source.layer].attention, rows=source.rows, has_class_token=True
            )
            for source in sources
        }

    def __call__(self, batch: Sequence[Shown]) -> Encoded:
        """What is made of every tile of every request, in order."""
        pictures = [picture for shown in batch for picture in shown.pictures]
        digests = [digest for picture in pictures for digest in picture.digests]
        if not digests:
            return Encoded(torch.zeros(0, 1, self._vision_tower.config.hidden_size), {}, 0.0)
        tiles = dict(zip(digests, (tile for picture in pictures for tile in picture.pieces), strict=True))
        encoded = self._encode_or_take_over(tuple(tiles), list(tiles.values()))
        # A question about the only pictures of a batch is often followed by another one about them.
        if not self._is_shared and len({shown.media for shown in batch if shown.media is not None}) > 1:
            self.forget()
        if len(digests) == len(tiles):
            return encoded
        places = {digest: place for place, digest in enumerate(tiles)}
        return encoded.take([places[digest] for digest in digests])

    def forget(self) -> None:
        """Let go of what is kept, for its memory."""
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
        """What is made of tiles [tiles, S, S, 3], uint8."""
        with ExitStack() as watched:
            for layer in self._layers.values():
                watched.enter_context(layer.watching())
            # Bytes travel to the device, not floats.
            vit_tokens = encode_tiles(self._vision_tower, normalise(tiles.to(device)))
        return Encoded(vit_tokens, {source: layer.taken() for source, layer in self._layers.items()}, 0.0)
