"""Pool: every tile's visual tokens are averaged 2 x 2, to a quarter of their number, without any training.

Place:   connector.
Source:  none; the control that shows what a trained low connector is worth. Runs on base weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vico_eval.errors import CheckpointError
from vico_eval.internvl.config import VicoInternVLConfig
from vico_eval.methods.parts import ConnectorPart, RequestTiles
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Nothing to set."""


@register("pool")
class Pool(ConnectorPart):
    """Averages the high connector's tokens of every tile."""

    Config = PoolConfig

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Needs tiles whose tokens form a grid of even side."""
        if model_config.num_high_tokens != 4 * model_config.num_low_tokens:
            raise CheckpointError(
                f"checkpoint {checkpoint!r} has {model_config.num_high_tokens} visual tokens a tile; method 'pool' "
                "needs a square grid of even side to average 2 x 2 of them."
            )

    def route(self, tiles: RequestTiles, model_config: VicoInternVLConfig) -> Tensor:
        """[tiles], all True."""
        return torch.ones(tiles.num_tiles, dtype=torch.bool)

    def shorten(self, high_tokens: Tensor) -> Tensor:
        """Means [tiles, n / 4, D] of 2 x 2 neighbours among a tile's tokens [tiles, n, D], which stand row by row."""
        side = isqrt(high_tokens.shape[1])
        grid = high_tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [tiles, D, rows, columns]
        return avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
