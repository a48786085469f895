"""What all methods on one model share of a batch's tiles: vision tokens, routers' scores, visual tokens by route.

Shapes: tiles = those of the batch; S = vision tokens along a tile's side; M = visual tokens of the batch; C = vision
width; D = decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vico_eval.families.family import Look, Shown
from vico_eval.families.internvl.tile_encoder import Encoded, TileEncoder
from vico_eval.methods.interface import ENCODER_ATTENTION, ENCODER_KEYS, Route, ScoreSource

if TYPE_CHECKING:
    from vico_eval.families.internvl.modeling import VicoInternVL


def score_source(look: Look) -> ScoreSource | None:
    """Where the encoder's scores come from that a look needs; None where it needs none."""
    selection = look.selection
    if selection is None or not selection.needs & {ENCODER_ATTENTION, ENCODER_KEYS}:
        return None
    return selection.score_source


class SharedTiles:
    """What is computed of the last batch's tiles, each thing once for all looks."""

    def __init__(self, model: VicoInternVL, looks: Sequence[Look]) -> None:
        self._model = model
        self._is_shared = len(looks) > 1
        sources = dict.fromkeys(filter(None, map(score_source, looks)))
        self._encode = TileEncoder(model.vision_tower, sources, is_shared=self._is_shared)
        self._encode_for_router = None
        if model.router_vision is not None:
            self._encode_for_router = TileEncoder(model.router_vision, is_shared=self._is_shared)
        self._last: BatchTiles | None = None

    def of(self, batch: Sequence[Shown]) -> BatchTiles:
        """Of a batch, which may be the one that another look has just asked about."""
        digests = tuple(digest for shown in batch for picture in shown.pictures for digest in picture.digests)
        if self._last is None or self._last.digests != digests:
            self._last = None  # before the encoder needs memory
            self._last = BatchTiles(self._model, digests, self._encode(batch))
        return self._last

    def read_by_router(self, batch: Sequence[Shown]) -> Encoded:
        """What the routers read of a batch: another encoder's tokens, where they came with one."""
        return self.of(batch).encoded if self._encode_for_router is None else self._encode_for_router(batch)

    def done(self) -> None:
        """A look has seen the batch; where nobody else will ask about it, let go of it."""
        if not self._is_shared:
            self._last = None

    def forget(self) -> None:
        """Let go of everything that is kept, for its memory."""
        self._last = None
        self._encode.forget()
        if self._encode_for_router is not None:
            self._encode_for_router.forget()


class BatchTiles:
    """The tiles of one batch."""

    def __init__(self, model: VicoInternVL, digests: tuple[bytes, ...], encoded: Encoded) -> None:
        self.digests = digests
        """[tiles]."""

        self.encoded = encoded
        self._model = model
        self._scores: dict[str, Tensor] = {}
        self._connected: dict[tuple[tuple[int, ...], tuple[Route, ...]], tuple[Tensor, Tensor]] = {}

    def p_compress(self, scorer: str, read: Encoded) -> Tensor:
        """Scores [tiles] of a router, by its name, for what it reads."""
        if scorer not in self._scores:
            self._scores[scorer] = self._model.p_compress(scorer, read.vit_tokens)
        return self._scores[scorer]

    def connect(self, choice: Tensor, routes: tuple[Route, ...]) -> tuple[Tensor, Tensor]:
        """Visual tokens [M, D] by the route that each tile takes, and how many of them each has.

        Args:
            choice: [tiles], int64: which of `routes`.
            routes: none for the high connector alone.
        """
        if not self.digests:
            return self._model.no_visual_tokens(), torch.zeros(0, dtype=torch.int64)
        taken = tuple(choice.tolist()), routes
        if taken not in self._connected:
            tokens, counts = self._model.connect(self.encoded.vit_tokens, choice, routes)
            self._connected[taken] = tokens, counts.cpu()
        return self._connected[taken]
