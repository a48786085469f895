"""Methods that let tokens leave before one layer of the decoder."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts
from vico_eval.methods.shared.earlier_run import TargetRatio


@dataclass(frozen=True, kw_only=True)
class SingleCut(TargetRatio):
    """Where tokens leave."""

    layer: int = 2
    """Layers that work on all tokens, at least 1 (the papers' K)."""

    def share_behind(self, target: float, num_layers: int) -> float:
        """The share that stays with which a layer works on the target's, on average."""
        return (target * num_layers - self.layer) / (num_layers - self.layer)

    def check_cut(self, method: str, facts: ModelFacts) -> None:
        """Raises ConfigError if the decoder has no layer behind the cut, or the layers before it exceed a target."""
        layer, num_layers = self.layer, facts.num_layers
        if layer >= num_layers:
            raise ConfigError(
                f"{method} got layer={layer}, and the decoder of {facts.checkpoint!r} has {num_layers} layers: no "
                f"token could leave. Expected 1 to {num_layers - 1}."
            )
        for name, target in self.targets().items():
            if self.share_behind(target, num_layers) <= 0:
                raise ConfigError(
                    f"{method} can't reach {name}: {layer} of {num_layers} layers work on all visual tokens, which is "
                    f"{layer / num_layers:.3f} on average already. Expected more than that, up to 1; or lower layer=."
                )
