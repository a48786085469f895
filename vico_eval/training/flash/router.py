"""ViCO's stage 2: the router learns which tiles lose little when they are compressed.

Source: ViCO (arXiv 2510.12793), section 3.2 and equation 2.
Differs: a loss ratio has epsilon added above and below, so that an answer that equals the reference's does not make it
infinite (the paper does not say what it does); the first ratios only fill the window of the percentile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from vico_eval.internvl.router import Router
from vico_eval.training.flash.batches import MicroBatch, seeded
from vico_eval.training.flash.config import RouterConfig
from vico_eval.training.flash.held_out import HeldOut
from vico_eval.training.flash.pair import PolicyAndReference
from vico_eval.training.flash.watch import Watch
from vico_eval.training.labels import PercentileWindow, loss_ratio
from vico_eval.training.router import auc, decision_scores


class Decisions(NamedTuple):
    """One decision a sample, and what compressing would cost."""

    chosen: Tensor
    """[tiles], bool: the tiles that a decision is about."""

    ratio: Tensor
    """[samples]: loss with these tiles low over that with every tile high; NaN where a sample has no tile."""

    vit_tokens: Tensor
    """[tiles, 1 + h*w, C], the policy's."""


class RouterOnly(nn.Module):
    """The router as what is trained: p_compress of decisions."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router

    def forward(self, vit_tokens: Tensor, decision: Tensor, num_decisions: int) -> Tensor:
        """[decisions] of the tiles [tiles, 1 + h*w, C] that each is about; about several tiles, the mean of theirs."""
        return decision_scores(self.router, vit_tokens, decision, num_decisions)


class Labels:
    """The window of ratios behind the labels; the same on every process."""

    def __init__(self, config: RouterConfig) -> None:
        self._window = PercentileWindow(config.percentile, config.window)
        self._burn_in = config.burn_in

    def keep(self, ratio: float) -> bool | None:
        """Take in one ratio; True to keep, False to compress, None while the window fills."""
        label = self._window.keep(ratio)
        return label if len(self._window.window) > self._burn_in else None

    @property
    def tau(self) -> float:
        """The threshold now; NaN before the first ratio."""
        return self._window.threshold if self._window.window else float("nan")

    @property
    def ratios(self) -> list[float]:
        """Those in the window, oldest first."""
        return list(self._window.window)

    def state_dict(self) -> dict[str, Any]:
        """The ratios in the window."""
        return {"ratios": self.ratios}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._window.window.clear()
        self._window.window.extend(state["ratios"])


class RouterStepper:
    """Cross-entropy of one decision a sample."""

    def __init__(
        self, accelerator: Accelerator, pair: PolicyAndReference, config: RouterConfig, watch: Watch, held_out: HeldOut
    ) -> None:
        """
        Args:
            pair: both frozen.
        """
        self.labels = Labels(config)
        self._accelerator = accelerator
        self._pair = pair
        self._config = config
        self._watch = watch
        self._held_out = held_out
        watch.declare("loss", "accuracy", "keep_share", "ratio", "tokens")

    def losses(self, model: nn.Module, batch: MicroBatch, seeds: tuple[object, ...]) -> Tensor:
        """[samples]; 0 where a sample has no tile, or no label yet."""
        decisions = self.decide(batch, seeds)
        counts = batch.counts_in_loss.to(decisions.ratio.device)
        labels = self._label(torch.where(counts, decisions.ratio, torch.nan))
        p_compress = model(*self._asked(batch, decisions)).float()
        known = labels >= 0
        losses = _cross_entropy(p_compress, labels)
        self._show(batch, losses, p_compress, labels, decisions)
        return torch.where(known, losses, 0.0 * losses)

    @torch.no_grad()
    def decide(self, batch: MicroBatch, seeds: tuple[object, ...]) -> Decisions:
        """One decision a sample, about a random tile or all tiles of a random image, every other tile high."""
        chosen = choose(batch, seeds, self._config.level)
        result = self._pair(batch, [chosen, torch.zeros_like(chosen)])
        low, high = result.kl
        ratio = loss_ratio(low, high, self._config.epsilon)
        has_tiles = (batch.num_tiles() > 0).to(ratio.device)
        return Decisions(chosen, torch.where(has_tiles, ratio, torch.nan), result.vit_tokens)

    def held_out(self, model: nn.Module) -> float:
        """Cross-entropy on held-out decisions, labelled by their own percentile."""
        scores, labels = self._held_out_scores(model)
        known = labels >= 0
        return float(_cross_entropy(scores, labels)[known].mean()) if bool(known.any()) else float("nan")

    def report(self, model: nn.Module) -> dict[str, float]:
        """How well the router tells held-out decisions apart: `auc` against the oracle's labels, `accuracy`, `samples`.

        The oracle compresses what costs least: the decisions whose ratio is below the configured percentile.
        """
        scores, labels = self._held_out_scores(model)
        scores, compress = scores[labels >= 0], labels[labels >= 0] == 0
        both = bool(compress.any()) and not bool(compress.all())
        return {
            "auc": auc(scores, compress) if both else float("nan"),
            "accuracy": float(((scores > 0.5) == compress).float().mean()),
            "samples": float(len(scores)),
        }

    @torch.no_grad()
    def _held_out_scores(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """p_compress and oracle label of the held-out decisions of all processes; labels as `_label` makes them."""
        ratios, scores = [], []
        for batch in self._held_out.batches():
            moved = batch.to(self._accelerator.device)
            decisions = self.decide(moved, ("held-out",))
            ratios.append(torch.where(batch.counts_in_loss.to(decisions.ratio.device), decisions.ratio, torch.nan))
            scores.append(model(*self._asked(moved, decisions)).float())
        everyone = self._held_out.together(torch.cat(ratios)).double()
        labels = torch.full(everyone.shape, -1)
        known = ~everyone.isnan()
        if bool(known.any()):
            tau = torch.quantile(everyone[known], self._config.percentile / 100)
            labels = torch.where(known, (everyone >= tau).long(), labels)
        return self._held_out.together(torch.cat(scores)), labels

    @staticmethod
    def _asked(batch: MicroBatch, decisions: Decisions) -> tuple[Tensor, Tensor, int]:
        """What `RouterOnly` is called with. A sample without a tile is asked about a blank one, and never labelled."""
        decision = batch.tile_sample[decisions.chosen]
        tokens = decisions.vit_tokens[decisions.chosen.to(decisions.vit_tokens.device)]
        missing = (batch.num_tiles() == 0).nonzero()[:, 0]
        blank = tokens.new_zeros(len(missing), *decisions.vit_tokens.shape[1:])
        return torch.cat([tokens, blank]), torch.cat([decision, missing]).to(tokens.device), len(batch)

    def _label(self, ratio: Tensor) -> Tensor:
        """[samples]: 1 to keep, 0 to compress, -1 for no label, of this process's ratios.

        All processes see all ratios, in the order of the step's micro-batches, so that their windows stay the same.
        """
        everyone = self._accelerator.gather(ratio)
        labels = [-1 if value != value else _as_number(self.labels.keep(value)) for value in everyone.tolist()]
        first = self._accelerator.process_index * len(ratio)
        return torch.tensor(labels[first : first + len(ratio)], device=ratio.device)

    def _show(
        self, batch: MicroBatch, losses: Tensor, p_compress: Tensor, labels: Tensor, decisions: Decisions
    ) -> None:
        values = zip(losses.tolist(), p_compress.tolist(), labels.tolist(), decisions.ratio.tolist(), strict=True)
        for loss, score, label, ratio in values:
            if ratio == ratio:
                self._watch.add("ratio", ratio)
            if label >= 0:
                self._watch.add("loss", loss)
                self._watch.add("accuracy", float((score > 0.5) == (label == 0)))
                self._watch.add("keep_share", float(label))
        self._watch.add("tokens", float(batch.num_tokens(decisions.chosen, self._pair.policy.config)))


def choose(batch: MicroBatch, seeds: tuple[object, ...], level: str) -> Tensor:
    """What each sample's decision is about: a random tile, or all tiles of the image that a random tile is of.

    Returns:
        [tiles], bool.
    """
    chosen = torch.zeros(len(batch.tile_sample), dtype=torch.bool)
    first = 0
    for sample, tiles in zip(batch.samples, batch.num_tiles().tolist(), strict=True):
        if tiles:
            place = first + int(torch.randint(tiles, (), generator=seeded(*seeds, sample.key)))
            chosen[place] = True
            if level == "image":
                chosen |= batch.tile_image == batch.tile_image[place]
        first += tiles
    return chosen


def _cross_entropy(p_compress: Tensor, labels: Tensor) -> Tensor:
    """[decisions], of labels [decisions] with 1 to keep; anything where a label is missing."""
    compress = (labels == 0).to(p_compress)
    # In bfloat16 a probability may round to 1.
    return F.binary_cross_entropy(p_compress.clamp(1e-6, 1 - 1e-6), compress, reduction="none")


def _as_number(keep: bool | None) -> int:
    return -1 if keep is None else int(keep)
