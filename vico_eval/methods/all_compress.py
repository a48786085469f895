"""ViCO (All Compress): every tile takes a quarter of its visual tokens.

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
    """Nothing to set."""


class AllCompress(ConnectorPart):
    """Sends every tile through the low connector."""

    Config = AllCompressConfig

    def check(self, facts: ModelFacts) -> None:
        """Needs a low connector."""
        need_low_connector(facts, "all_compress")

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """[tiles], all True."""
        return torch.ones(tiles.num_tiles, dtype=torch.bool)
