"""The shared part of methods that compress a random subset of a request's tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ConnectorPart, ModelFacts, RequestTiles
from vico_eval.methods.shared.earlier_run import compressed_tile_ratios, no_such_benchmark


@dataclass(frozen=True, kw_only=True)
class RandomTilesConfig:
    """Share of tiles to compress, and the seed."""

    ratio: float | None = None
    """Share of tiles to compress, in [0, 1], for every benchmark."""

    ratio_from: str | None = None
    """Folder of a ViCO run, whose measured ratio is used benchmark by benchmark; replaces `ratio`."""

    seed: int = 0
    """Seed of the draw, which depends on it and on the document's key alone."""

    def __post_init__(self) -> None:
        if self.ratio is not None and self.ratio_from is not None:
            raise ConfigError("got ratio and ratio_from; give one, because ratio_from measures each benchmark's ratio.")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ConfigError(f"got ratio={self.ratio}; expected a share of tiles in [0, 1].")


class RandomTiles(ConnectorPart):
    """Compresses a random subset of each request's tiles, drawn from the document's key and the seed alone."""

    Config = RandomTilesConfig
    config: RandomTilesConfig

    def check(self, facts: ModelFacts) -> None:
        """Require that the run named by ratio_from, if any, can be read."""
        if self.config.ratio_from is not None:
            _ = self._ratio_by_task

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Compress a random subset; [tiles], bool. Its size is the ratio's in expectation over documents."""
        digest = sha256(f"{self.config.seed}/{tiles.key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        # Rounded at random: fixed rounding would never compress a single tile at ratios below one half.
        num_compressed = int(tiles.num_tiles * self.ratio(tiles.task) + rng.random())
        compressed = torch.zeros(tiles.num_tiles, dtype=torch.bool)
        compressed[torch.from_numpy(rng.permutation(tiles.num_tiles)[:num_compressed])] = True
        return compressed

    def ratio(self, task: str) -> float:
        """Share of a benchmark's tiles to compress; all if no ratio was given.

        Raises:
            ConfigError: the earlier run has no tiles of the benchmark.
        """
        if self.config.ratio_from is None:
            return 1.0 if self.config.ratio is None else self.config.ratio
        if task not in self._ratio_by_task:
            raise no_such_benchmark(self.config.ratio_from, task, self._ratio_by_task, "ratio")
        return self._ratio_by_task[task]

    @cached_property
    def _ratio_by_task(self) -> dict[str, float]:
        return compressed_tile_ratios(str(self.config.ratio_from))
