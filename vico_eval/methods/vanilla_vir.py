"""Vanilla + ViR: the base model, never trained for it, on ViCO's own decisions.

Place:   connector.
Needs:   a second checkpoint with a router and a low connector (flash_from=).
Source:  ViCO (arXiv 2510.12793), Table 3: the decisions of the trained ViCO model, applied to the original one. ViCO's
         vision encoder and router decide about each tile, so the ratio is ViCO's. The base model's encoder sees all
         tiles once more: its tokens go through its own connector, or, of a compressed tile, through ViCO's low one.
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
    """Thresholds of the routing rule, or where decisions are found ready."""

    decisions_from: str | None = None
    """Folder of a run of ViCO on the same documents, whose decisions are taken; saves its encoder and router here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("relative_threshold", "absolute_threshold") if getattr(self, name) is not None]
        given += ["absolute_only"] if self.absolute_only else []
        if self.decisions_from is not None and given:
            raise ConfigError(
                f"vanilla_vir got decisions_from and {', '.join(given)}; the run has decided already, so give one."
            )


class VanillaViR(ViCO):
    """ViCO's decisions on base weights; `flash_from=` names the ViCO checkpoint, which also gives its low connector."""

    Config = VanillaViRConfig
    config: VanillaViRConfig
    needs_donor = True

    @property
    def needs_router(self) -> bool:  # type: ignore[override]
        """Decisions that are found ready need none."""
        return self.config.decisions_from is None

    def check(self, facts: ModelFacts) -> None:
        """Needs a low connector, and a router or a run that has decided."""
        if self.needs_router:
            super().check(facts)
        else:
            need_low_connector(facts, "vanilla_vir")
            _ = self._decisions

    def check_donor(self, identity: Callable[[], Mapping[str, str]], checkpoint: str) -> None:
        """The run that has decided must be one of the checkpoint that gives the low connector."""
        if not self.needs_router and self._decisions.sha256 != identity()["sha256"]:
            raise ConfigError(
                f"the run in decisions_from={self.config.decisions_from} is of other weights than flash_from="
                f"{checkpoint}. Give the checkpoint that it ran with, or run ViCO again."
            )

    def scored_by(self, facts: ModelFacts) -> str | None:
        """The router; none where decisions are found ready."""
        return super().scored_by(facts) if self.needs_router else None

    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """The tiles that ViCO compresses, [tiles], bool."""
        return super().route(tiles, facts) if self.needs_router else self._decisions.of(tiles)

    @cached_property
    def _decisions(self) -> EarlierDecisions:
        return EarlierDecisions(str(self.config.decisions_from))
