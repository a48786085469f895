"""ViCO's stage 2: the router learns which tiles lose little when they are compressed.

Source: ViCO (arXiv 2510.12793), section 3.2 and equation 2.
Differs: the ratios are collected first and the router then sees them for several epochs, where the paper makes one pass
with global batch 8. Nothing but the router trains, so its inputs do not change meanwhile.

Shapes: docs = documents of a batch; tiles = their tiles; T = tiles of one decision (1, or all tiles of an image).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vico_eval.internvl.modeling import VicoInternVL
from vico_eval.internvl.router import Router
from vico_eval.training.consistency import answer_kl, document_means
from vico_eval.training.data import Batch
from vico_eval.training.decoding import encode, routed_logits
from vico_eval.training.labels import PercentileWindow, loss_ratio


class Decision(NamedTuple):
    """What the router is to decide about, and what compressing it costs."""

    vit_tokens: Tensor
    """[T, 1 + h*w, C], the policy's."""

    ratio: float
    """Consistency loss with these tiles low over that with every tile high."""


@torch.no_grad()
def collect_decisions(
    reference: VicoInternVL, policy: VicoInternVL, batch: Batch, epsilon: float, *, whole_image: bool
) -> list[Decision]:
    """One decision per document: a random tile, or all tiles of a random image; every other tile is high."""
    docs, tiles = batch.tile_image.shape
    chosen = torch.zeros(docs, tiles, dtype=torch.bool)
    for row in range(docs):
        tile = int(torch.randint(tiles, ()))
        if whole_image:
            chosen[row] = batch.tile_image[row] == batch.tile_image[row, tile]
        else:
            chosen[row, tile] = True
    all_high = torch.zeros(docs * tiles, dtype=torch.bool)
    reference_logits = routed_logits(reference, batch, encode(reference, batch), all_high)
    vit_tokens = encode(policy, batch)

    def losses(compressed: Tensor) -> Tensor:
        kl = answer_kl(reference_logits, routed_logits(policy, batch, vit_tokens, compressed))
        return document_means(kl, batch.answer_document, docs)

    ratios = loss_ratio(losses(chosen.flatten()), losses(all_high), epsilon)
    per_document = vit_tokens.unflatten(0, (docs, tiles))
    return [Decision(per_document[row, chosen[row]].clone(), float(ratios[row])) for row in range(docs)]


def keep_labels(decisions: Sequence[Decision], percentile: float, window: int) -> Tensor:
    """1 (keep) or 0 (compress) for each decision, in the order in which they were collected, [decisions] int64.

    The window is filled with the first decisions beforehand, so that their labels are no noisier than the later ones.
    """
    ratios = [decision.ratio for decision in decisions]
    percentiles = PercentileWindow(percentile, window)
    for ratio in ratios[:window]:
        percentiles.keep(ratio)
    return torch.tensor([percentiles.keep(ratio) for ratio in ratios], dtype=torch.long)


def packed(decisions: Sequence[Decision]) -> tuple[Tensor, Tensor]:
    """Vision tokens [tiles, 1 + h*w, C] of several decisions and the decision of each tile [tiles]."""
    counts = torch.tensor([len(decision.vit_tokens) for decision in decisions])
    tiles = torch.cat([decision.vit_tokens for decision in decisions])
    return tiles, torch.arange(len(decisions)).repeat_interleave(counts)


def decision_scores(router: Router, vit_tokens: Tensor, decision: Tensor, num_decisions: int) -> Tensor:
    """p_compress of each decision [decisions]; about several tiles, the mean of theirs."""
    return document_means(router.p_compress(vit_tokens).float(), decision, num_decisions)


def router_loss(router: Router, vit_tokens: Tensor, decision: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the router's decisions.

    Args:
        vit_tokens: [tiles, 1 + h*w, C] of all decisions, packed.
        decision: [tiles], int64: the decision of each tile.
        labels: [decisions], int64, 1 for keep.
    """
    p_compress = decision_scores(router, vit_tokens, decision, len(labels))
    compress = 1 - labels
    loss = F.binary_cross_entropy(p_compress.clamp(1e-6, 1 - 1e-6), compress.float())
    accuracy = ((p_compress > 0.5).long() == compress).float().mean()
    return {"loss": loss, "accuracy": accuracy}


def ratio_summary(ratios: Sequence[float]) -> dict[str, float]:
    """Percentiles of the collected ratios, for the log."""
    return {f"p{q}": round(float(np.percentile(ratios, q)), 4) for q in (1, 10, 25, 50, 60, 75, 90, 99)}


def auc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

    Args:
        scores: [n].
        positive: [n], bool, with at least one of each.
    """
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())
