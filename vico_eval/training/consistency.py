"""ViCO's stage 1: train the policy to answer from fewer visual tokens as the frozen reference does from all of them.

Source: ViCO (arXiv 2510.12793), equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.training.config import LowSharePer
from vico_eval.training.data.batches import MicroBatch, random_share
from vico_eval.training.held_out import SHARES, HeldOut
from vico_eval.training.loop.health import Health
from vico_eval.training.loop.watch import Watch


def kl_name(share: float) -> str:
    """Return the name under which losses at this share of low tiles are shown, that of the nearest of `SHARES`."""
    nearest = min(SHARES, key=lambda one: abs(one - share))
    return f"kl_at_{100 * nearest:.0f}"


class ConsistencyStepper:
    """The consistency loss of samples with randomly chosen low tiles."""

    def __init__(
        self, config: VicoInternVLConfig, watch: Watch, held_out: HeldOut, *, per: LowSharePer, at_least: int = 0
    ) -> None:
        """
        Args:
            config: the policy's configuration.
            watch: records the losses.
            held_out: measures the loss at a checkpoint.
            per: the unit for which a share of low tiles is drawn, as in `random_share`.
            at_least: the minimum number of low tiles per unit; 1 while only the low connector is trained.
        """
        self._config = config
        self._watch = watch
        self._held_out = held_out
        self._per = per
        self._at_least = at_least
        watch.declare("loss", "agreement", "tokens", *map(kl_name, SHARES))

    def losses(self, model: nn.Module, batch: MicroBatch, seeds: tuple[object, ...], health: Health) -> Tensor:
        """[samples], nats."""
        compressed = random_share(batch, seeds, per=self._per, at_least=self._at_least)
        result = model(batch, [compressed])
        losses: Tensor = result.kl[0]
        self._show(batch, compressed, losses.tolist(), result.agreement[0].tolist())
        return losses

    def held_out(self, model: nn.Module) -> float:
        """Return the KL with half of the tiles low, in nats."""
        return self._held_out.kl(model)

    def distributions(self) -> dict[str, list[float]]:
        """Return an empty mapping: this stage shows no distributions."""
        return {}

    def _show(self, batch: MicroBatch, compressed: Tensor, losses: list[float], agreement: list[float]) -> None:
        num_tiles = batch.num_tiles().tolist()
        num_low = torch.bincount(batch.tile_sample, weights=compressed.double(), minlength=len(batch)).tolist()
        for place in batch.counts_in_loss.nonzero()[:, 0].tolist():
            self._watch.add("loss", losses[place])
            self._watch.add("agreement", agreement[place])
            if num_tiles[place]:
                self._watch.add(kl_name(num_low[place] / num_tiles[place]), losses[place])
        self._watch.add("tokens", float(batch.num_tokens(compressed, self._config)))
