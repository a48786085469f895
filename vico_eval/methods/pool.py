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
from vico_eval.methods.interface import HIGH, ModelFacts, Route
from vico_eval.methods.shared.random_tiles import RandomTiles


class Pool(RandomTiles):
    """Averages the high connector's tokens."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """The high connector, and the mean of its tokens."""
        return (HIGH, Route(HIGH.connector, means_of_squares))

    def check(self, facts: ModelFacts) -> None:
        """Needs tiles whose tokens form a grid of even side."""
        if facts.tile is None or facts.tile.visual_side % 2:
            tokens = "no tiles" if facts.tile is None else f"{facts.tile.num_tokens} visual tokens a tile"
            raise CheckpointError(
                f"checkpoint {facts.checkpoint!r} has {tokens}; method 'pool' needs a square grid of even side to "
                "average 2 x 2 of them."
            )
        super().check(facts)


def means_of_squares(tokens: Tensor) -> Tensor:
    """Means [tiles, n / 4, D] of 2 x 2 neighbours among a tile's tokens [tiles, n, D], which stand row by row."""
    side = isqrt(tokens.shape[1])
    grid = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [tiles, D, rows, columns]
    return avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
