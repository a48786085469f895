"""Methods in which tokens leave before one layer of the decoder."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts
from vico_eval.methods.shared.earlier_run import TargetRatio


@dataclass(frozen=True, kw_only=True)
class SingleCut(TargetRatio):
    """The layer before which tokens leave."""

    layer: int = 2
    """Number of layers that process all tokens, at least 1 (the papers' K)."""

    def share_behind(self, target: float, num_layers: int) -> float:
        """The share that stays after the cut if the average over layers is to meet the target."""
        return (target * num_layers - self.layer) / (num_layers - self.layer)

    def check_cut(self, method: str, facts: ModelFacts) -> None:
        """Raises ConfigError if no layer follows the cut, or if the layers before it already exceed a target."""
        layer, num_layers = self.layer, facts.num_layers
        if layer >= num_layers:
            raise ConfigError(
                f"{method} got layer={layer}, but the decoder of {facts.checkpoint!r} has {num_layers} layers, so no "
                f"token could leave. Expected 1 to {num_layers - 1}."
            )
        for name, target in self.targets().items():
            if self.share_behind(target, num_layers) <= 0:
                raise ConfigError(
                    f"{method} can't reach {name}: {layer} of {num_layers} layers process all visual tokens, so the "
                    f"average is above {layer / num_layers:.3f}. Expected more than that, or a lower layer=."
                )
