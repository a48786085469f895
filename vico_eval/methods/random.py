"""ViCO (Random Compress): as many tiles compressed as ViCO compresses, chosen at random.

Place:   connector.
Source:  ViCO (arXiv 2510.12793), Table 3. The control that shows what the router's choice is worth.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.internvl.config import VicoInternVLConfig
from vico_eval.methods.parts import ConnectorPart, RequestTiles, need_low_connector
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """How many tiles, and which draw."""

    ratio: float | None = None
    """Share of tiles to compress, in [0, 1], for every benchmark."""

    ratio_from: str | None = None
    """Folder of a run of ViCO, whose measured ratio is taken benchmark by benchmark; instead of `ratio`."""

    seed: int = 0

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.ratio_from is None):
            raise ConfigError(
                "random needs exactly one of ratio (a share of tiles in [0, 1]) and ratio_from (the folder of a run of "
                "ViCO)."
            )
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ConfigError(f"random got ratio={self.ratio}; expected a share of tiles in [0, 1].")


@register("random")
class Random(ConnectorPart):
    """Compresses a random subset of each request's tiles, drawn from the document's key and the seed alone."""

    Config = RandomConfig
    config: RandomConfig

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Needs a low connector, and a readable run where the ratio comes from one."""
        need_low_connector(model_config, checkpoint, "random")
        if self.config.ratio is None:
            _ = self._ratio_by_task

    def route(self, tiles: RequestTiles, model_config: VicoInternVLConfig) -> Tensor:
        """A random subset, [tiles], bool; its size is the ratio's in expectation over documents."""
        digest = sha256(f"{self.config.seed}/{tiles.key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        # A fixed rounding would never compress a lone tile at ratios below one half.
        num_compressed = int(tiles.num_tiles * self._ratio(tiles.task) + rng.random())
        compressed = torch.zeros(tiles.num_tiles, dtype=torch.bool)
        compressed[torch.from_numpy(rng.permutation(tiles.num_tiles)[:num_compressed])] = True
        return compressed

    def _ratio(self, task: str) -> float:
        if self.config.ratio is not None:
            return self.config.ratio
        if task not in self._ratio_by_task:
            raise ConfigError(
                f"the run in {self.config.ratio_from} has no tiles of {task!r}; it has "
                f"{', '.join(sorted(self._ratio_by_task))}. Run ViCO on that benchmark first, or pass ratio=."
            )
        return self._ratio_by_task[task]

    @cached_property
    def _ratio_by_task(self) -> dict[str, float]:
        folder = Path(str(self.config.ratio_from))
        files = sorted(folder.glob("accounts.rank*.jsonl"))
        if not files:
            raise ConfigError(
                f"ratio_from={folder} holds no accounts.rank*.jsonl; expected the record_dir of a finished run of ViCO."
            )
        accounts = {}
        for file in files:
            for line in file.read_text(encoding="utf-8").splitlines():
                if not line.endswith("}"):
                    continue  # empty, or cut off when the run was killed and written again since
                entry = json.loads(line)
                accounts[entry["task"], entry["split"], entry["doc_id"]] = entry["account"]
        tiles: Counter[str] = Counter()
        compressed: Counter[str] = Counter()
        for (task, _, _), account in accounts.items():
            tiles[task] += account["tiles"]
            compressed[task] += account["compressed_tiles"]
        return {task: compressed[task] / count for task, count in tiles.items() if count}
