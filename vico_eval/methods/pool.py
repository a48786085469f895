"""Pool: a tile's visual tokens are averaged 2 x 2, to a quarter of their number, without training.

Place:   connector.
Source:  none; a control that measures the value of a trained low connector. It runs on base weights. It compresses all
         tiles or, with `ratio` or `ratio_from`, a random subset: the same tiles that `random` compresses with the same
         seed.
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
        """Require tiles whose tokens form a square grid of even side."""
        if facts.tile is None or facts.tile.visual_side % 2:
            tokens = "no tiles" if facts.tile is None else f"{facts.tile.num_tokens} visual tokens per tile"
            raise CheckpointError(
                f"checkpoint {facts.checkpoint!r} has {tokens}; method 'pool' averages 2 x 2 tokens and needs a square "
                "grid of even side. Load another checkpoint, or run `vanilla`."
            )
        super().check(facts)


def means_of_squares(tokens: Tensor) -> Tensor:
    """Means [tiles, n / 4, D] of 2 x 2 neighbours among a tile's tokens [tiles, n, D], which are in row order."""
    side = isqrt(tokens.shape[1])
    grid = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [tiles, D, rows, columns]
    return avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
