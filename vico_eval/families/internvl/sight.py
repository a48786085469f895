"""InternVL's sight: tiles are encoded together, then routed and connected for each request.

Shapes: tiles = tiles in the call; S = vision tokens along a tile's side; n = visual tokens of a request; D = decoder
width; C = vision width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vico_eval.families.encoder_attention import PatchAttention, score_source
from vico_eval.families.family import Look, Seen, SeenTiles, Shown, Sight
from vico_eval.families.finite import refuse_not_finite
from vico_eval.families.internvl.mixed_inputs import MixedInputs
from vico_eval.families.internvl.shared_tiles import BatchTiles, SharedTiles
from vico_eval.families.internvl.token_places import grid_yx, of_squares, tokens_of
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    P_COMPRESS,
    RequestTiles,
    Route,
    VisualTokens,
)
from vico_eval.stages import METHOD, stage

if TYPE_CHECKING:
    from vico_eval.families.internvl.modeling import VicoInternVL


class InternVLSight(Sight):
    """The route and the visual tokens of each tile."""

    def __init__(self, model: VicoInternVL, look: Look, shared: SharedTiles) -> None:
        self._model = model
        self._look = look
        self._shared = shared
        self._source = score_source(look.selection)

    def encode(self, batch: Sequence[Shown]) -> float:
        """Encode the tiles, and also by the routers' own encoder if routers are used."""
        of_batch = self._shared.of(batch)
        seconds = of_batch.encoded.seconds
        if self._scorer is not None and of_batch.for_router is not of_batch.encoded:
            seconds += of_batch.for_router.seconds
        return seconds

    def forget(self) -> None:
        """Release the last images' tokens."""
        self._shared.forget()

    def __call__(self, batch: Sequence[Shown]) -> list[Seen]:
        """The visual tokens of each request."""
        sizes = [shown.num_pieces for shown in batch]
        of_batch = self._shared.of(batch)
        of_batch.saved_s = 0.0
        encoded = of_batch.encoded
        scores = self._scores(batch, of_batch, sizes)
        decisions = [self._decide(*each) for each in zip(batch, scores, strict=True)]
        tokens, counts = of_batch.connect(torch.cat(decisions), self._routes)
        per_tile = torch.split(counts, sizes)
        attention: list[PatchAttention | None] = [None] * len(batch)
        if self._source is not None and self._source in encoded.attention:
            parts = (part.split(sizes) for part in encoded.attention[self._source])
            attention = [PatchAttention(*each) for each in zip(*parts, strict=True)]
        tiles = map(_Tiles, torch.split(encoded.vit_tokens, sizes), decisions, per_tile, scores, attention)
        seen = [
            self._seen(*each)
            for each in zip(batch, torch.split(tokens, [int(part.sum()) for part in per_tile]), tiles, strict=True)
        ]
        self.saved_s = of_batch.saved_s
        self._shared.done()
        return seen

    @property
    def _routes(self) -> tuple[Route, ...]:
        return () if self._look.connector is None else tuple(self._look.connector.routes)

    @property
    def _scorer(self) -> str | None:
        """Return the router's name."""
        connector, selection = self._look.connector, self._look.selection
        scorer = None if connector is None else connector.scored_by(self._model.facts)
        if scorer is None and selection is not None and P_COMPRESS in selection.needs:
            return "router"
        return scorer

    def _scores(self, batch: Sequence[Shown], of_batch: BatchTiles, sizes: list[int]) -> list[Tensor | None]:
        """Return the router's scores [tiles] of each request, on the CPU; None without a router."""
        scorer = self._scorer
        if scorer is None or not of_batch.has_tiles:
            return [None] * len(batch)
        # A few numbers that decide on the next step: one synchronisation for all requests.
        found = torch.split(of_batch.p_compress(scorer).cpu(), sizes)
        is_finite = [bool(part.isfinite().all()) for part in found]
        refuse_not_finite(
            "router's scores", (shown.key for shown, fine in zip(batch, is_finite, strict=True) if not fine)
        )
        return [part if len(part) else None for part in found]

    def _decide(self, shown: Shown, p_compress: Tensor | None) -> Tensor:
        """Return the route of each tile of a request, [tiles], int64."""
        connector, num_tiles = self._look.connector, shown.num_pieces
        if connector is None or not connector.routes or not num_tiles:
            return torch.zeros(num_tiles, dtype=torch.int64)
        tiles = RequestTiles(shown.key, torch.from_numpy(shown.piece_image), p_compress, shown.media, shown.grids)
        with stage(METHOD):
            choice = connector.route(tiles, self._model.facts).cpu().long()
        # A tile without a route would be lost silently.
        if choice.shape != (num_tiles,) or not bool(((choice >= 0) & (choice < len(connector.routes))).all()):
            raise RuntimeError(
                f"a part chose routes {choice.tolist()} for the {num_tiles} tiles of {shown.key}; expected one of 0 to "
                f"{len(connector.routes) - 1} for each"
            )
        return choice

    def _seen(self, shown: Shown, tokens: Tensor, tiles: _Tiles) -> Seen:
        full, scores = self._model.num_high_tokens, tiles.p_compress
        per_image = [0] * len(shown.pictures)
        for image, count in zip(shown.piece_image.tolist(), tiles.counts.tolist(), strict=True):
            per_image[image] += count
        wants_visual = self._look.selection is not None and len(tokens) > 0
        return Seen(
            tokens=tokens,
            per_image=per_image,
            uncompressed=len(tiles.counts) * full,
            visual=self._described(shown, tokens, tiles) if wants_visual else None,
            tiles=SeenTiles(
                counts=tiles.counts.tolist(),
                compressed=(tiles.counts < full).tolist(),
                p_compress=None if scores is None else scores.float().tolist(),
            ),
            vit_tokens=tiles.vit_tokens if self._look.vit_tokens else None,
        )

    def _described(self, shown: Shown, tokens: Tensor, tiles: _Tiles) -> VisualTokens:
        """Return the tokens with the inputs of a selection part, on their device."""
        config, device = self._model.config, tokens.device
        is_swapped = config.ps_version == "v1"
        tile = tokens_of(tiles.counts)
        values: dict[str, Tensor] = {}
        if tiles.attention is not None:
            for name, of_patches in tiles.attention._asdict().items():
                values[name] = of_squares(of_patches, tiles.counts, swapped=is_swapped).to(device)
        if tiles.p_compress is not None:
            values["p_compress"] = tiles.p_compress.float().to(device)[tile.to(device)]
        grid = grid_yx(shown.grids, tiles.counts, isqrt(config.num_high_tokens), swapped=is_swapped)
        return VisualTokens(
            key=shown.key,
            tokens=tokens,
            image=torch.from_numpy(shown.piece_image)[tile].to(device),
            tile=tile.to(device),
            grid_yx=grid.to(device),
            connect_mixed=self._mixer(tiles),
            **values,
        )

    def _mixer(self, tiles: _Tiles) -> MixedInputs | None:
        """Return the function that mixes the connector's inputs, for a part that needs it."""
        selection = self._look.selection
        if selection is None or CONNECTOR_INPUTS not in selection.needs:
            return None
        return MixedInputs(self._model, tiles.vit_tokens, tiles.choice, self._routes)


class _Tiles(NamedTuple):
    """A request's tiles."""

    vit_tokens: Tensor
    """[tiles, 1 + S*S, C]."""

    choice: Tensor
    """[tiles], int64: the route of each."""

    counts: Tensor
    """[tiles], int64: number of visual tokens of each."""

    p_compress: Tensor | None
    """[tiles], the router's scores."""

    attention: PatchAttention | None
    """[tiles, S*S, ...], from the requested layer."""
