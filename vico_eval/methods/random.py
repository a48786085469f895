"""ViCO (Random Compress): as many tiles compressed as ViCO compresses, chosen at random.

Place:   connector.
Needs:   a low connector (a Flash checkpoint), and a ratio to match (ratio= or ratio_from=).
Source:  ViCO (arXiv 2510.12793), Table 3. The control that shows what the router's choice is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts, need_low_connector
from vico_eval.methods.shared.random_tiles import RandomTiles, RandomTilesConfig


@dataclass(frozen=True, kw_only=True)
class RandomConfig(RandomTilesConfig):
    """How many tiles, and which draw."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio is None and self.ratio_from is None:
            raise ConfigError(
                "random needs exactly one of ratio (a share of tiles in [0, 1]) and ratio_from (the folder of a run of "
                "ViCO)."
            )


class Random(RandomTiles):
    """Sends a random subset of each request's tiles through the low connector."""

    Config = RandomConfig

    def check(self, facts: ModelFacts) -> None:
        """Needs a low connector, and a readable run where the ratio comes from one."""
        need_low_connector(facts, "random")
        super().check(facts)
