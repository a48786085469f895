"""Vanilla: the unmodified model, in which every tile keeps all its visual tokens.

Place:   connector, which it leaves unchanged.
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
    """No hyper-parameters."""


class Vanilla(ConnectorPart):
    """Keeps every tile at full length."""

    Config = VanillaConfig

    @property
    def routes(self) -> tuple[Route, ...]:
        """None: every tile goes through the model's own connector."""
        return ()

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Route 0 for every tile: [tiles]."""
        return torch.zeros(tiles.num_tiles, dtype=torch.int64)
