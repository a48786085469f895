"""Vanilla: the model as it is. Every tile keeps its full number of visual tokens.

Place:   connector.
Source:  InternVL; the baseline row of ViCO's tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.parts import ConnectorPart, RequestTiles
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class VanillaConfig:
    """Nothing to set."""


@register("vanilla")
class Vanilla(ConnectorPart):
    """Keeps every tile at full length."""

    Config = VanillaConfig
    compresses = False

    def route(self, tiles: RequestTiles, model_config: VicoInternVLConfig) -> Tensor:
        """[tiles], all False."""
        return torch.zeros(tiles.num_tiles, dtype=torch.bool)
