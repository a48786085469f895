"""ViCO (Random Compress): compress as many tiles as ViCO does, chosen at random.

Place:   connector.
Needs:   a low connector (a Flash checkpoint), and a ratio to match (ratio= or ratio_from=).
Source:  ViCO (arXiv 2510.12793), Table 3. A control that measures the value of the router's choice.
"""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts, need_low_connector
from vico_eval.methods.shared.random_tiles import RandomTiles, RandomTilesConfig


@dataclass(frozen=True, kw_only=True)
class RandomConfig(RandomTilesConfig):
    """Share of tiles to compress, and the seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio is None and self.ratio_from is None:
            raise ConfigError(
                "random needs exactly one of ratio (a share of tiles in [0, 1]) and ratio_from (the folder of a ViCO "
                "run)."
            )


class Random(RandomTiles):
    """Sends a random subset of each request's tiles through the low connector."""

    Config = RandomConfig

    def check(self, facts: ModelFacts) -> None:
        """Require a low connector and, if the ratio comes from a run, that the run can be read."""
        need_low_connector(facts, "random")
        super().check(facts)
