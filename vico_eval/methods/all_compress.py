"""ViCO (All Compress): every tile is compressed to a quarter of its visual tokens.

Place:   connector.
Needs:   a low connector (a Flash checkpoint).
Source:  ViCO (arXiv 2510.12793), Table 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vico_eval.methods.interface import ConnectorPart, ModelFacts, RequestTiles, need_low_connector


@dataclass(frozen=True, kw_only=True)
class AllCompressConfig:
    """No hyper-parameters."""


class AllCompress(ConnectorPart):
    """Sends every tile through the low connector."""

    Config = AllCompressConfig

    def check(self, facts: ModelFacts) -> None:
        """Require a low connector."""
        need_low_connector(facts, "all_compress")

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Compress every tile: [tiles], all True."""
        return torch.ones(tiles.num_tiles, dtype=torch.bool)
