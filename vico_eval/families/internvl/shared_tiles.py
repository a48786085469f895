"""Computations on a batch's tiles that all methods of a model share: vision tokens, router scores, visual tokens by
route.

Shapes: tiles = tiles of the batch; S = vision tokens along a tile's side; M = visual tokens of the batch; C = vision
width; D = decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vico_eval.families.clock import seconds_on
from vico_eval.families.encoder_attention import score_source
from vico_eval.families.family import Look, Shown
from vico_eval.families.internvl.tile_encoder import Encoded, TileEncoder
from vico_eval.methods.interface import Route

if TYPE_CHECKING:
    from vico_eval.families.internvl.modeling import VicoInternVL


class SharedTiles:
    """Results for the last batch's tiles, each computed once for all looks."""

    def __init__(self, model: VicoInternVL, looks: Sequence[Look]) -> None:
        self._model = model
        self._is_shared = len(looks) > 1
        sources = dict.fromkeys(filter(None, (score_source(look.selection) for look in looks)))
        self._encode = TileEncoder(model.vision_tower, sources, is_shared=self._is_shared)
        self._encode_for_router = self._encode
        if model.router_vision is not None:
            self._encode_for_router = TileEncoder(model.router_vision, is_shared=self._is_shared)
        self._last: BatchTiles | None = None

    def of(self, batch: Sequence[Shown]) -> BatchTiles:
        """Return the shared results of a batch, which another look may just have used."""
        if self._last is None or not self._last.is_of(batch):
            self._last = None  # released before the encoder needs memory
            self._last = BatchTiles(self._model, batch, self._encode, self._encode_for_router)
        return self._last

    def done(self) -> None:
        """Record that a look has processed the batch, and release it if no other look needs it."""
        if not self._is_shared:
            self._last = None

    def forget(self) -> None:
        """Release all memory."""
        self._last = None
        self._encode.forget()
        self._encode_for_router.forget()


class BatchTiles:
    """The tiles of one batch."""

    def __init__(
        self, model: VicoInternVL, batch: Sequence[Shown], encode: TileEncoder, encode_for_router: TileEncoder
    ) -> None:
        self._model = model
        self._batch = batch
        self._known_by = _known_by(batch)
        self._encode_for_router = encode_for_router
        self.encoded = encode(batch)
        self._for_router = self.encoded if encode is encode_for_router else None
        self._scores: dict[str, tuple[Tensor, float]] = {}
        self._connected: dict[tuple[tuple[int, ...], tuple[Route, ...]], tuple[Tensor, Tensor, float]] = {}
        self.saved_s = 0.0
        """Time of scores and connectors that were already computed; reset by the caller."""

    def is_of(self, batch: Sequence[Shown]) -> bool:
        """Return whether a batch, which may have been prepared again, has these tiles and documents."""
        return _known_by(batch) == self._known_by

    @property
    def has_tiles(self) -> bool:
        """Whether there are tiles."""
        return bool(self._known_by[1])

    @property
    def for_router(self) -> Encoded:
        """The routers' input: another encoder's tokens, if they have their own."""
        if self._for_router is None:
            self._for_router = self._encode_for_router(self._batch)
        return self._for_router

    def p_compress(self, scorer: str) -> Tensor:
        """Return the scores [tiles] of a router, given by name."""
        if scorer in self._scores:
            scores, seconds = self._scores[scorer]
            self.saved_s += seconds
            return scores
        read = self.for_router.vit_tokens
        started = seconds_on(read.device)
        scores = self._model.p_compress(scorer, read)
        self._scores[scorer] = scores, seconds_on(read.device) - started
        return scores

    def connect(self, choice: Tensor, routes: tuple[Route, ...]) -> tuple[Tensor, Tensor]:
        """Return visual tokens [M, D] by each tile's route, and the number of tokens of each tile.

        Args:
            choice: [tiles], int64, index into `routes`.
            routes: empty for the high connector alone.
        """
        if not self.has_tiles:
            return self._model.no_visual_tokens(), torch.zeros(0, dtype=torch.int64)
        taken = tuple(choice.tolist()), routes
        if taken in self._connected:
            tokens, counts, seconds = self._connected[taken]
            self.saved_s += seconds
            return tokens, counts
        device = self.encoded.vit_tokens.device
        started = seconds_on(device)
        tokens, counts = self._model.connect(self.encoded.vit_tokens, choice, routes)
        self._connected[taken] = tokens, counts, seconds_on(device) - started
        return self._connected[taken][:2]


def _known_by(batch: Sequence[Shown]) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Return the documents' keys, and digests of all tiles in order."""
    digests = (digest for shown in batch for picture in shown.pictures for digest in picture.digests)
    return tuple(shown.key for shown in batch), tuple(digests)
