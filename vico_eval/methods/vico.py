"""ViCO: a router (ViR) decides, tile by tile, which tiles take a quarter of their visual tokens.

Place:   connector.
Source:  ViCO (arXiv 2510.12793); the rule and its thresholds as in the code released with InternVL3.5-Flash.
Differs: the relative rule looks at the tiles of one request only; serving engines take a whole batch together, so that
         an answer depends on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.router import check_thresholds, compress_tiles
from vico_eval.methods.parts import ConnectorPart, RequestTiles, need_router
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class ViCOConfig:
    """Thresholds of the routing rule."""

    relative_threshold: float | None = None
    """A tile is compressed only above this quantile of its request's scores, in [0, 1]; None takes the checkpoint's."""

    absolute_threshold: float | None = None
    """And only at this score or above, in [0, 1]; None takes the checkpoint's."""

    absolute_only: bool = False
    """Leave the relative rule out. It never compresses a request's lowest tile, so never a lone one."""

    def __post_init__(self) -> None:
        check_thresholds(self.relative_threshold, self.absolute_threshold)


@register("vico")
class ViCO(ConnectorPart):
    """Routes each tile by the router's score."""

    Config = ViCOConfig
    config: ViCOConfig

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Needs a low connector and a router."""
        need_router(model_config, checkpoint, "vico")

    def score(self, model: VicoInternVL, vit_tokens: Tensor) -> Tensor:
        """The router's p_compress, [tiles]."""
        assert model.router is not None, "check() has seen a router"
        return model.router.p_compress(vit_tokens)

    def route(self, tiles: RequestTiles, model_config: VicoInternVLConfig) -> Tensor:
        """The tiles that pass both thresholds, [tiles], bool."""
        assert tiles.p_compress is not None
        relative, absolute = self.config.relative_threshold, self.config.absolute_threshold
        if relative is None:
            relative = model_config.flash_relative_threshold
        if absolute is None:
            absolute = model_config.flash_absolute_threshold
        return compress_tiles(tiles.p_compress, None if self.config.absolute_only else relative, absolute)
