"""ViCO: a router (ViR) decides for each tile whether it is compressed to a quarter of its visual tokens.

Place:   connector.
Needs:   a router and a low connector (a Flash checkpoint).
Source:  ViCO (arXiv 2510.12793); the rule and its thresholds follow the code released with InternVL3.5-Flash.
Differs: the relative rule considers the tiles of one request only. Serving engines apply it to a whole batch, so that
         an answer depends on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vico_eval.methods.interface import ConnectorPart, ModelFacts, RequestTiles, need_router
from vico_eval.methods.shared.thresholds import check_thresholds


@dataclass(frozen=True, kw_only=True)
class ViCOConfig:
    """Thresholds of the routing rule."""

    relative_threshold: float | None = None
    """Compress a tile only above this quantile of its request's scores, in [0, 1]; None uses the checkpoint's value."""

    absolute_threshold: float | None = None
    """Compress a tile only at this score or above, in [0, 1]; None uses the checkpoint's value."""

    absolute_only: bool = False
    """Skip the relative rule, which never compresses a request's lowest-scoring tile and so never a single one."""

    def __post_init__(self) -> None:
        check_thresholds(self.relative_threshold, self.absolute_threshold)


class ViCO(ConnectorPart):
    """Routes each tile by the router's score."""

    Config = ViCOConfig
    config: ViCOConfig

    def check(self, facts: ModelFacts) -> None:
        """Require a low connector and a router."""
        need_router(facts, "vico")

    def scored_by(self, facts: ModelFacts) -> str | None:
        """The router."""
        return "router"

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Compress the tiles that pass both thresholds; [tiles], bool."""
        assert tiles.p_compress is not None
        relative, absolute = self.config.relative_threshold, self.config.absolute_threshold
        if relative is None:
            relative = facts.parts["router"]["relative_threshold"]
        if absolute is None:
            absolute = facts.parts["router"]["absolute_threshold"]
        return compress_tiles(tiles.p_compress, None if self.config.absolute_only else relative, absolute)


def compress_tiles(p_compress: Tensor, relative: float | None, absolute: float) -> Tensor:
    """Which tiles of ONE request are compressed.

    A tile is compressed iff its score is above the `relative` quantile of the request's scores and at least `absolute`.
    The lowest-scoring tile is therefore never compressed, and neither is a single tile. The quantile is never taken
    over a batch: an answer must not depend on its neighbours.

    Args:
        p_compress: [tiles], any float dtype. As in the released code, the quantile (computed in float32) and the
            threshold are rounded to that dtype before the comparison.
        relative: quantile in [0, 1], linearly interpolated; None skips this rule.
        absolute: threshold in [0, 1].

    Returns:
        [tiles], bool.

    Raises:
        ConfigError: a threshold is outside [0, 1].
    """
    check_thresholds(relative, absolute)
    compressed = p_compress >= torch.tensor(absolute, dtype=p_compress.dtype, device=p_compress.device)
    if relative is None or not len(p_compress):
        return compressed
    quantile = torch.quantile(p_compress.float(), relative).to(p_compress.dtype)
    return compressed & (p_compress > quantile)
