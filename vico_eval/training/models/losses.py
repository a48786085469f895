"""ViCO's consistency loss over a large vocabulary, a few answer tokens at a time.

Source: ViCO (arXiv 2510.12793), equation 1.

Shapes: answers = answer tokens of a micro-batch; D = decoder width; V = vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Comparison(NamedTuple):
    """How the policy compares with the reference at each answer token."""

    kl: Tensor
    """[answers], KL(reference || policy) in nats."""

    agrees: Tensor
    """[answers], bool: both rank the same token first."""


def compare_answers(
    reference_hidden: Tensor,
    reference_head: nn.Module,
    hidden: Tensor,
    head: nn.Module,
    *,
    chunk: int,
    num_chunks: int = 0,
) -> Comparison:
    """Compute KL(reference || policy) of each answer token from the last hidden states.

    Logits are computed for `chunk` rows at a time, and recomputed in the backward pass, so that memory grows with
    `chunk` and not with the number of answers.

    Args:
        reference_hidden, hidden: [answers, D]; row i of both predicts the same token.
        reference_head, head: [rows, D] -> logits [rows, V]. No gradient flows into the reference head.
        chunk: answer tokens at a time.
        num_chunks: the minimum number of calls of the heads, where all processes must make the same number.
    """
    pairs = list(zip(reference_hidden.detach().split(chunk), hidden.split(chunk), strict=True))
    pairs += [(reference_hidden[:0].detach(), hidden[:0])] * (num_chunks - len(pairs))
    parts = [_compare(reference_head, head, one, other) for one, other in pairs]
    return Comparison(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _compare(reference_head: nn.Module, head: nn.Module, reference_hidden: Tensor, hidden: Tensor) -> Comparison:
    def run(reference_hidden: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            reference = reference_head(reference_hidden).float().log_softmax(dim=-1)
        policy = head(hidden).float().log_softmax(dim=-1)
        kl = F.kl_div(policy, reference, log_target=True, reduction="none").sum(dim=-1)
        return kl, reference.argmax(dim=-1) == policy.argmax(dim=-1)

    if not torch.is_grad_enabled():
        return Comparison(*run(reference_hidden, hidden))
    return Comparison(*checkpoint(run, reference_hidden, hidden, use_reentrant=False))
