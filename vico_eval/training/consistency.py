"""ViCO's stage 1: the policy answers from fewer visual tokens as the frozen reference does from all of them.

Source: ViCO (arXiv 2510.12793), equation 1.
Differs: the small model's warm-up adds an auxiliary loss (`LayoutHead`); its head is dropped afterwards.

Shapes: answers = answer tokens of a batch, document after document; docs = documents; V = vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vico_eval.internvl.modeling import VicoInternVL
from vico_eval.training.data import UNKNOWN, Batch
from vico_eval.training.decoding import encode, random_compressed, routed_logits


def answer_kl(reference_logits: Tensor, policy_logits: Tensor) -> Tensor:
    """KL(reference || policy) of each answer token, [answers], from logits [answers, V] of the same tokens."""
    reference = reference_logits.log_softmax(dim=-1)
    policy = policy_logits.log_softmax(dim=-1)
    return (reference.exp() * (reference - policy)).sum(dim=-1)


def document_means(values: Tensor, document: Tensor, num_documents: int) -> Tensor:
    """Mean of each document's values.

    Args:
        values: [answers].
        document: [answers], int64: the document of each value; every document has at least one.

    Returns:
        [docs].
    """
    sums = values.new_zeros(num_documents).index_add(0, document, values)
    return sums / torch.bincount(document, minlength=num_documents)


def consistency_loss(reference_logits: Tensor, policy_logits: Tensor, document: Tensor, num_documents: int) -> Tensor:
    """Mean over answer tokens within a document, then over documents, of KL(reference || policy).

    Args:
        reference_logits, policy_logits: [answers, V]; row i of both predicts the same answer token, although their
            prompts differ in length.
        document: [answers], int64: the document of each answer token.
        num_documents: docs.

    Returns:
        Scalar, nats.
    """
    return document_means(answer_kl(reference_logits, policy_logits), document, num_documents).mean()


class LayoutHead(nn.Module):
    """Asks a low token for the glyphs of the four slots under it, in their places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 4 * width)

    def forward(self, low_tokens: Tensor, embedding: Tensor) -> Tensor:
        """Byte logits [tiles, n_low, 4, 256] of low tokens [tiles, n_low, D]; embedding [V, D]."""
        slots = self.linear(low_tokens).unflatten(-1, (4, low_tokens.shape[-1]))
        return slots @ embedding[:256].detach().T  # type: ignore[no-any-return]


def layout_loss(head: LayoutHead, low_tokens: Tensor, glyphs: Tensor, embedding: Tensor) -> Tensor:
    """Cross-entropy over the four slots of each low token; an empty slot is byte 0, unknown slots are left out.

    Args:
        low_tokens: [tiles, n_low, D], the low tokens row by row.
        glyphs: [tiles, side, side], int64, side the high tokens along a tile.
        embedding: [V, D].
    """
    tiles, side, _ = glyphs.shape
    squares = glyphs.reshape(tiles, side // 2, 2, side // 2, 2).transpose(2, 3).reshape(tiles, -1, 4)
    logits = head(low_tokens, embedding)
    known = squares != UNKNOWN
    # Most slots are empty; without the weight the head learns to say so.
    weight = torch.ones(256)
    weight[0] = 0.2
    return F.cross_entropy(logits[known], squares[known], weight)


def warmup_loss(
    reference: VicoInternVL, policy: VicoInternVL, head: LayoutHead, batch: Batch, layout_weight: float
) -> dict[str, Tensor]:
    """Stage 1's loss for the low connector alone: at least one tile of each document is low."""
    compressed = random_compressed(batch, at_least=1)
    with torch.no_grad():
        vit_tokens = encode(reference, batch)  # still the policy's too: only the low connector has moved
        reference_logits = routed_logits(reference, batch, vit_tokens, torch.zeros_like(compressed))
    policy_logits = routed_logits(policy, batch, vit_tokens, compressed)
    kl = consistency_loss(reference_logits, policy_logits, batch.answer_document, batch.num_documents)
    assert policy.connector_low is not None
    embedding: Tensor = policy.get_input_embeddings().weight
    layout = layout_loss(head, policy.connector_low(vit_tokens), batch.glyphs, embedding)
    return {"loss": kl + layout_weight * layout, "kl": kl.detach(), "layout": layout.detach()}


def policy_loss(
    reference: VicoInternVL, policy: VicoInternVL, batch: Batch, *, train_vision: bool
) -> dict[str, Tensor]:
    """Stage 1's loss for one batch, every document with its own share of low tiles."""
    compressed = random_compressed(batch)
    with torch.no_grad():
        reference_tokens = encode(reference, batch)
        reference_logits = routed_logits(reference, batch, reference_tokens, torch.zeros_like(compressed))
    vit_tokens = encode(policy, batch) if train_vision else reference_tokens
    policy_logits = routed_logits(policy, batch, vit_tokens, compressed)
    loss = consistency_loss(reference_logits, policy_logits, batch.answer_document, batch.num_documents)
    return {"loss": loss}
