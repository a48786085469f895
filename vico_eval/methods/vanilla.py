"""Vanilla: the model as it is. Every tile keeps its full number of visual tokens.

Place:   connector, which it leaves as it is.
Models:  any.
Source:  InternVL; the baseline row of ViCO's tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vico_eval.methods.interface import ConnectorPart, ModelFacts, RequestTiles, Route


@dataclass(frozen=True, kw_only=True)
class VanillaConfig:
    """Nothing to set."""


class Vanilla(ConnectorPart):
    """Keeps every tile at full length."""

    Config = VanillaConfig

    @property
    def routes(self) -> tuple[Route, ...]:
        """None: the model's own connector."""
        return ()

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """[tiles], all 0."""
        return torch.zeros(tiles.num_tiles, dtype=torch.int64)
