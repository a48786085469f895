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
    """One decision a sample: what compressing would cost, and what the router answers."""

    ratio: Tensor
    """[samples]: loss with the decision's tiles low over that with every tile high; NaN where a sample has no tile."""

    log_p: Tensor
    """[samples, 2], float32: log-probabilities of *compress* and *keep*; for several tiles, of their mean ones."""


class RouterInTraining(nn.Module):
    """The router, and the frozen models whose losses teach it."""

    def __init__(self, pair: PolicyAndReference, level: str, epsilon: float) -> None:
        """
        Args:
            pair: whose policy has the router.
            level: "tile" or "image": which of the policy's routers is trained.
            epsilon: of `loss_ratio`.
        """
        super().__init__()
        self.pair = pair
        self._level = level
        self._epsilon = epsilon

    @property
    def router(self) -> Router:
        """What is trained."""
        policy = self.pair.policy
        router = policy.image_router if self._level == "image" else policy.router
        assert router is not None
        return router

    def train(self, mode: bool = True) -> RouterInTraining:
        """The router alone goes into training mode; the frozen models, which are asked for their losses, don't."""
        super().train(mode)
        self.pair.eval()
        self.router.train(mode)
        return self

    @property
    def _no_split_modules(self) -> list[str]:
        """As `PolicyAndReference._no_split_modules`."""
        return self.pair._no_split_modules

    def tie_weights(self) -> None:
        """As `PolicyAndReference.tie_weights`."""
        self.pair.tie_weights()

    def forward(self, batch: MicroBatch, chosen: Tensor) -> Decisions:
        """A decision for each sample, about its tiles in `chosen`, [tiles] bool.

        One pass of the vision encoder (two where stage 1 trained it) and three of decoders, without gradients; these
        reach the router alone. A sample without a tile is asked about a blank one.
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
    """The window of ratios behind the labels; the same on every process."""

    def __init__(self, config: RouterConfig) -> None:
        self._window = PercentileWindow(config.percentile, config.window)
        self._burn_in = config.burn_in

    def keep(self, ratio: float) -> bool | None:
        """Take in one ratio; True to keep, False to compress, None while the window fills."""
        has_filled = len(self._window.window) >= self._burn_in
        label = self._window.keep(ratio)
        return label if has_filled else None

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
        self,
        accelerator: Accelerator,
        policy: VicoInternVLConfig,
        config: RouterConfig,
        watch: Watch,
        held_out: HeldOut,
    ) -> None:
        """
        Args:
            policy: its configuration.
        """
        self.labels = Labels(config)
        self._accelerator = accelerator
        self._policy = policy
        self._config = config
        self._watch = watch
        self._held_out = held_out
        watch.declare("loss", "accuracy", "keep_share", "ratio", "tau", "tokens")

    def losses(self, model: nn.Module, batch: MicroBatch, seeds: tuple[object, ...], health: Health) -> Tensor:
        """[samples]; 0 where a sample has no tile, or no label yet."""
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
        """Cross-entropy on held-out decisions, labelled by their own percentile."""
        log_p, labels = self._held_out_scores(model)
        known = labels >= 0
        return float(_cross_entropy(log_p, labels)[known].mean()) if bool(known.any()) else float("nan")

    def distributions(self) -> dict[str, list[float]]:
        """The loss ratios in the window."""
        return {"ratios": self.labels.ratios}

    def report(self, model: nn.Module) -> dict[str, float]:
        """How well the router tells held-out decisions apart: `auc` against the oracle's labels, `accuracy`, `samples`.

        The oracle compresses what costs least: the decisions whose ratio is below the configured percentile.
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
        """`log_p` and oracle label of the held-out decisions of all processes; labels as `_label` makes them."""
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
        """[samples]: 1 to keep, 0 to compress, -1 for no label, of this process's ratios.

        All processes see all ratios, in the order of the step's micro-batches, so that their windows stay the same.
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
    """A sample without a tile has no loss ratio, and is asked about a blank tile."""
    health.samples(batch, "loss ratio r", decisions.ratio, batch.num_tiles() > 0)
    health.samples(batch, "router's score", log_odds(decisions.log_p))


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


def decision_scores(router: nn.Module, vit_tokens: Tensor, decision: Tensor, num_decisions: int) -> Tensor:
    """Log-probabilities [decisions, 2] of *compress* and *keep*; for several tiles, of their mean probabilities.

    Never by way of a probability: one that is rounded to 1, which bfloat16 does above 0.998, would have no gradient.

    Args:
        router: tiles [tiles, 1 + h*w, C] -> logits [tiles, 2] of *compress* and *keep*.
        vit_tokens: [tiles, 1 + h*w, C] of all decisions.
        decision: [tiles], int64: the decision of each tile; every decision has one.
    """
    logits: Tensor = router(vit_tokens)
    log_p = logits.float().log_softmax(dim=-1)  # [tiles, 2]
    place = decision[:, None].expand_as(log_p)
    highest = log_p.new_full((num_decisions, 2), -torch.inf).scatter_reduce(0, place, log_p.detach(), "amax")
    means = document_means((log_p - highest[decision]).exp(), decision, num_decisions)  # [decisions, 2]
    return means.log() + highest


def log_odds(log_p: Tensor) -> Tensor:
    """[decisions], of `log_p` [decisions, 2]: above 0 where *compress* is likelier, and finer than a probability."""
    return log_p[:, 0] - log_p[:, 1]


def _cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    """[decisions], of labels [decisions] with 1 to keep, 0 to compress; 0 where a label is missing."""
    losses = -log_p.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return torch.where(labels >= 0, losses, 0.0 * losses)


def _as_number(keep: bool | None) -> int:
    return -1 if keep is None else int(keep)
