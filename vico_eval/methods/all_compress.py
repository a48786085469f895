"""ViCO (All Compress): every tile takes a quarter of its visual tokens.

Place:   connector.
Source:  ViCO (arXiv 2510.12793), Table 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.parts import ConnectorPart, RequestTiles, need_low_connector
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class AllCompressConfig:
    """Nothing to set."""


@register("all_compress")
class AllCompress(ConnectorPart):
    """Sends every tile through the low connector."""

    Config = AllCompressConfig

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Needs a low connector."""
        need_low_connector(model_config, checkpoint, "all_compress")

    def route(self, tiles: RequestTiles, model_config: VicoInternVLConfig) -> Tensor:
        """[tiles], all True."""
        return torch.ones(tiles.num_tiles, dtype=torch.bool)
