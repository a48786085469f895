"""Vanilla + ViR: the base model, never trained on compressed tiles, with ViCO's routing decisions.

Place:   connector.
Needs:   a second checkpoint with a router and a low connector (flash_from=).
Source:  ViCO (arXiv 2510.12793), Table 3: the trained ViCO model's decisions, applied to the original model. ViCO's
         vision encoder and router decide for each tile, so the compression ratio is ViCO's. The base model's encoder
         then processes all tiles again. Its tokens go through its own connector or, for compressed tiles, through
         ViCO's low one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts, RequestTiles, need_low_connector
from vico_eval.methods.shared.earlier_decisions import EarlierDecisions
from vico_eval.methods.vico import ViCO, ViCOConfig


@dataclass(frozen=True, kw_only=True)
class VanillaViRConfig(ViCOConfig):
    """Thresholds of the routing rule, or an earlier run whose decisions are used."""

    decisions_from: str | None = None
    """Folder of a ViCO run on the same documents whose decisions are used; ViCO's encoder and router then don't run
    here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("relative_threshold", "absolute_threshold") if getattr(self, name) is not None]
        given += ["absolute_only"] if self.absolute_only else []
        if self.decisions_from is not None and given:
            raise ConfigError(
                f"vanilla_vir got decisions_from and {', '.join(given)}; the earlier run has decided, so give only one."
            )


class VanillaViR(ViCO):
    """ViCO's decisions on base weights; `flash_from=` names the ViCO checkpoint, which supplies the low connector."""

    Config = VanillaViRConfig
    config: VanillaViRConfig
    needs_donor = True

    @property
    def needs_router(self) -> bool:  # type: ignore[override]
        """False if the decisions come from an earlier run."""
        return self.config.decisions_from is None

    def check(self, facts: ModelFacts) -> None:
        """Require a low connector, and a router or the decisions of an earlier run."""
        if self.needs_router:
            super().check(facts)
        else:
            need_low_connector(facts, "vanilla_vir")
            _ = self._decisions

    def check_donor(self, identity: Callable[[], Mapping[str, str]], checkpoint: str) -> None:
        """Require that the earlier run used the checkpoint that supplies the low connector."""
        if not self.needs_router and self._decisions.sha256 != identity()["sha256"]:
            raise ConfigError(
                f"the run in decisions_from={self.config.decisions_from} used other weights than flash_from="
                f"{checkpoint}. Pass the checkpoint of that run, or run ViCO again."
            )

    def scored_by(self, facts: ModelFacts) -> str | None:
        """The router; None if the decisions come from an earlier run."""
        return super().scored_by(facts) if self.needs_router else None

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Compress the tiles that ViCO compresses; [tiles], bool."""
        return super().route(tiles, facts) if self.needs_router else self._decisions.of(tiles)

    @cached_property
    def _decisions(self) -> EarlierDecisions:
        return EarlierDecisions(str(self.config.decisions_from))
