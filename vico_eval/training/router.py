"""ViCO's stage 2: train the router to predict which tiles can be compressed at little loss.

Source: ViCO (arXiv 2510.12793), section 3.2 and equation 2.
Differs: epsilon is added to numerator and denominator of a loss ratio, so that an answer equal to the reference's does
not make it infinite (the paper does not specify this case); the first ratios only fill the percentile's window.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.router import Router
from vico_eval.training.config import RouterConfig
from vico_eval.training.data.batches import MicroBatch, seeded
from vico_eval.training.held_out import HeldOut
from vico_eval.training.labels import PercentileWindow, loss_ratio
from vico_eval.training.loop.health import Health
from vico_eval.training.loop.watch import Watch
from vico_eval.training.models.measures import auc, document_means
from vico_eval.training.models.pair import PolicyAndReference


class Decisions(NamedTuple):
    """One decision per sample: the cost of compressing, and the router's prediction."""

    ratio: Tensor
    """[samples]: the loss with the decision's tiles low, divided by the loss with every tile high. NaN for a sample
    without tiles."""

    log_p: Tensor
    """[samples, 2], float32: log-probabilities of *compress* and *keep*, averaged as probabilities over several
    tiles."""


class RouterInTraining(nn.Module):
    """The router, with the frozen models whose losses supervise it."""

    def __init__(self, pair: PolicyAndReference, level: str, epsilon: float) -> None:
        """
        Args:
            pair: the models; the policy holds the router.
            level: "tile" or "image", which selects one of the policy's routers.
            epsilon: as in `loss_ratio`.
        """
        super().__init__()
        self.pair = pair
        self._level = level
        self._epsilon = epsilon

    @property
    def router(self) -> Router:
        """The router that is trained."""
        policy = self.pair.policy
        router = policy.image_router if self._level == "image" else policy.router
        assert router is not None
        return router

    def train(self, mode: bool = True) -> RouterInTraining:
        """Set the mode of the router alone; the frozen models stay in evaluation mode."""
        super().train(mode)
        self.pair.eval()
        self.router.train(mode)
        return self

    @property
    def _no_split_modules(self) -> list[str]:
        """See `PolicyAndReference._no_split_modules`."""
        return self.pair._no_split_modules

    def tie_weights(self) -> None:
        """See `PolicyAndReference.tie_weights`."""
        self.pair.tie_weights()

    def forward(self, batch: MicroBatch, chosen: Tensor) -> Decisions:
        """Return a decision for each sample, about its tiles in `chosen`, [tiles] bool.

        This takes one pass of the vision encoder (two if stage 1 trained it) and three decoder passes, all without
        gradients; gradients reach only the router. A sample without tiles gets a blank one.
        """
        chosen = chosen.cpu()  # DDP and FSDP move arguments to the device
        with torch.no_grad():
            result = self.pair(batch, [chosen, torch.zeros_like(chosen)])
        low, high = result.kl
        ratio = loss_ratio(low, high, self._epsilon)
        has_tiles = (batch.num_tiles() > 0).to(ratio.device)
        decision = batch.tile_sample[chosen]
        tokens = result.vit_tokens[chosen.to(result.vit_tokens.device)]
        missing = (batch.num_tiles() == 0).nonzero()[:, 0]
        blank = tokens.new_zeros(len(missing), *result.vit_tokens.shape[1:])
        log_p = decision_scores(
            self.router,
            torch.cat([tokens, blank]),
            torch.cat([decision, missing]).to(tokens.device),
            len(batch),
        )
        return Decisions(torch.where(has_tiles, ratio, torch.nan), log_p)


class Labels:
    """The window of ratios from which labels are derived; it is identical on every process."""

    def __init__(self, config: RouterConfig) -> None:
        self._window = PercentileWindow(config.percentile, config.window)
        self._burn_in = config.burn_in

    def keep(self, ratio: float) -> bool | None:
        """Add one ratio; return True to keep, False to compress, None while the window is filling."""
        has_filled = len(self._window.window) >= self._burn_in
        label = self._window.keep(ratio)
        return label if has_filled else None

    @property
    def tau(self) -> float:
        """The current threshold; NaN before the first ratio."""
        return self._window.threshold if self._window.window else float("nan")

    @property
    def ratios(self) -> list[float]:
        """The ratios in the window, oldest first."""
        return list(self._window.window)

    def state_dict(self) -> dict[str, Any]:
        """Return the ratios in the window."""
        return {"ratios": self.ratios}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the ratios of a `state_dict`."""
        self._window.window.clear()
        self._window.window.extend(state["ratios"])


class RouterStepper:
    """The cross-entropy of one decision per sample."""

    def __init__(
        self,
        accelerator: Accelerator,
        policy: VicoInternVLConfig,
        config: RouterConfig,
        watch: Watch,
        held_out: HeldOut,
    ) -> None:
        """
        Args:
            policy: the policy's configuration.
        """
        self.labels = Labels(config)
        self._accelerator = accelerator
        self._policy = policy
        self._config = config
        self._watch = watch
        self._held_out = held_out
        watch.declare("loss", "accuracy", "keep_share", "ratio", "tau", "tokens")

    def losses(self, model: nn.Module, batch: MicroBatch, seeds: tuple[object, ...], health: Health) -> Tensor:
        """Return the losses, [samples]; 0 where a sample has no tile or no label yet."""
        chosen = choose(batch, seeds, self._config.level)
        decisions: Decisions = model(batch, chosen)
        _show_health(health, batch, decisions)
        counts = batch.counts_in_loss.to(decisions.ratio.device)
        ratio = torch.where(counts, decisions.ratio, torch.nan)
        labels = self._label(ratio)
        losses = _cross_entropy(decisions.log_p, labels)
        self._show(losses, log_odds(decisions.log_p), labels, ratio)
        if self.labels.ratios:
            self._watch.add("tau", self.labels.tau)
        self._watch.add("tokens", float(batch.num_tokens(chosen, self._policy)))
        return losses

    def held_out(self, model: nn.Module) -> float:
        """Return the cross-entropy on held-out decisions, labelled by their own percentile."""
        log_p, labels = self._held_out_scores(model)
        known = labels >= 0
        return float(_cross_entropy(log_p, labels)[known].mean()) if bool(known.any()) else float("nan")

    def distributions(self) -> dict[str, list[float]]:
        """Return the loss ratios in the window."""
        return {"ratios": self.labels.ratios}

    def report(self, model: nn.Module) -> dict[str, float]:
        """Return how well the router predicts the oracle's labels on held-out decisions: `auc`, `accuracy`, `samples`.

        The oracle compresses the decisions whose loss ratio is below the configured percentile.
        """
        log_p, labels = self._held_out_scores(model)
        scores, compress = log_odds(log_p)[labels >= 0], labels[labels >= 0] == 0
        both = bool(compress.any()) and not bool(compress.all())
        return {
            "auc": auc(scores, compress) if both else float("nan"),
            "accuracy": float(((scores > 0) == compress).float().mean()),
            "samples": float(len(scores)),
        }

    @torch.no_grad()
    def _held_out_scores(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return `log_p` and the oracle's label, coded as in `_label`, of all processes' held-out decisions."""
        ratios, scores = [], []
        health = Health(self._accelerator.device)
        for batch in self._held_out.batches():
            decisions = model(batch.to(self._accelerator.device), choose(batch, ("held-out",), self._config.level))
            _show_health(health, batch, decisions)
            counts = batch.counts_in_loss.to(decisions.ratio.device)
            ratios.append(torch.where(counts, decisions.ratio, torch.nan))
            scores.append(decisions.log_p)
        self._held_out.check(health)
        everyone = self._held_out.together(torch.cat(ratios)).double()
        labels = torch.full(everyone.shape, -1)
        known = ~everyone.isnan()
        if bool(known.any()):
            tau = torch.quantile(everyone[known], self._config.percentile / 100)
            labels = torch.where(known, (everyone >= tau).long(), labels)
        return self._held_out.together(torch.cat(scores)), labels

    def _label(self, ratio: Tensor) -> Tensor:
        """Return the labels of this process's ratios, [samples]: 1 to keep, 0 to compress, -1 for no label.

        Every process sees all ratios, in the order of the step's micro-batches, so that the windows stay identical.
        """
        everyone = self._accelerator.gather(ratio)
        labels = [-1 if value != value else _as_number(self.labels.keep(value)) for value in everyone.tolist()]
        first = self._accelerator.process_index * len(ratio)
        return torch.tensor(labels[first : first + len(ratio)], device=ratio.device)

    def _show(self, losses: Tensor, scores: Tensor, labels: Tensor, ratios: Tensor) -> None:
        values = zip(losses.tolist(), scores.tolist(), labels.tolist(), ratios.tolist(), strict=True)
        for loss, score, label, ratio in values:
            if ratio == ratio:
                self._watch.add("ratio", ratio)
            if label >= 0:
                self._watch.add("loss", loss)
                self._watch.add("accuracy", float((score > 0) == (label == 0)))
                self._watch.add("keep_share", float(label))


def _show_health(health: Health, batch: MicroBatch, decisions: Decisions) -> None:
    """Record ratios and scores; a sample without tiles has no ratio, but a score for its blank tile."""
    health.samples(batch, "loss ratio r", decisions.ratio, batch.num_tiles() > 0)
    health.samples(batch, "router's score", log_odds(decisions.log_p))


def choose(batch: MicroBatch, seeds: tuple[object, ...], level: str) -> Tensor:
    """Choose the tiles of each sample's decision: a random tile, or all tiles of the image that it belongs to.

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


def decision_scores(router: nn.Module, vit_tokens: Tensor, decision: Tensor, num_decisions: int) -> Tensor:
    """Return log-probabilities of *compress* and *keep*, [decisions, 2], averaged as probabilities over several tiles.

    The mean is computed in log space: bfloat16 rounds a probability above 0.998 to 1, which has no gradient.

    Args:
        router: maps tiles [tiles, 1 + h*w, C] to logits [tiles, 2] of *compress* and *keep*.
        vit_tokens: [tiles, 1 + h*w, C], the tiles of all decisions.
        decision: [tiles], int64, the decision that each tile belongs to; every decision has at least one tile.
    """
    logits: Tensor = router(vit_tokens)
    log_p = logits.float().log_softmax(dim=-1)  # [tiles, 2]
    place = decision[:, None].expand_as(log_p)
    highest = log_p.new_full((num_decisions, 2), -torch.inf).scatter_reduce(0, place, log_p.detach(), "amax")
    means = document_means((log_p - highest[decision]).exp(), decision, num_decisions)  # [decisions, 2]
    return means.log() + highest


def log_odds(log_p: Tensor) -> Tensor:
    """Return the log-odds of *compress*, [decisions], from `log_p` [decisions, 2]; they resolve more than a probability
    near 0 or 1."""
    return log_p[:, 0] - log_p[:, 1]


def _cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return [decisions] losses for labels 1 (keep) and 0 (compress); 0 where a label is missing."""
    losses = -log_p.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return torch.where(labels >= 0, losses, 0.0 * losses)


def _as_number(keep: bool | None) -> int:
    return -1 if keep is None else int(keep)
