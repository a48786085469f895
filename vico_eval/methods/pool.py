"""Pool: a tile's visual tokens are averaged 2 x 2, to a quarter of their number, without any training.

Place:   connector.
Source:  none; the control that shows what a trained low connector is worth. Runs on base weights. All tiles, or with
         ratio= or ratio_from= a random subset: the very tiles that `random` compresses with the same seed.
"""

from __future__ import annotations

from math import isqrt

from torch import Tensor
from torch.nn.functional import avg_pool2d

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.random_tiles import RandomTiles
from vico_eval.methods.registry import register


@register("pool")
class Pool(RandomTiles):
    """Averages the high connector's tokens."""

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Needs tiles whose tokens form a grid of even side."""
        if model_config.num_high_tokens != 4 * model_config.num_low_tokens:
            raise CheckpointError(
                f"checkpoint {checkpoint!r} has {model_config.num_high_tokens} visual tokens a tile; method 'pool' "
                "needs a square grid of even side to average 2 x 2 of them."
            )
        super().check(model_config, checkpoint)

    def shorten(self, high_tokens: Tensor) -> Tensor:
        """Means [tiles, n / 4, D] of 2 x 2 neighbours among a tile's tokens [tiles, n, D], which stand row by row."""
        side = isqrt(high_tokens.shape[1])
        grid = high_tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [tiles, D, rows, columns]
        return avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
