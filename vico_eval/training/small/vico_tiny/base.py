"""Training of the base model: next-token loss on answers, with every tile at full length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.small.data.batches import Batch
from vico_eval.training.small.data.documents import NO_GLYPH
from vico_eval.training.small.decoding import answer_logits, encode

ALIGN_TEMPERATURE = 0.1


def base_loss(model: VicoInternVL, batch: Batch, align_weight: float, *, train_vision: bool) -> dict[str, Tensor]:
    """Return the cross-entropy on answer tokens plus the weighted loss that aligns high tokens with their glyphs."""
    with torch.set_grad_enabled(train_vision):
        vit_tokens = encode(model, batch)
    high = model.connector_high(vit_tokens)  # [tiles, n_high, D]
    counts = torch.full((len(high),), high.shape[1])
    logits = answer_logits(model, batch, high.flatten(0, 1), counts)
    answer = F.cross_entropy(logits, batch.answers)
    losses = {"loss": answer, "answer": answer.detach()}
    if align_weight > 0:
        align = glyph_alignment(high, batch.glyphs.flatten(1), model.get_input_embeddings().weight)
        losses["loss"] = answer + align_weight * align
        losses["align"] = align.detach()
    return losses


def glyph_alignment(tokens: Tensor, glyphs: Tensor, embedding: Tensor) -> Tensor:
    """Return the loss that aligns visual tokens with the embeddings of the glyphs they show.

    This is the cross-entropy over byte values, with the cosine between a token and each byte's embedding as logits, at
    temperature 0.1.

    Args:
        tokens: [tiles, slots, D].
        glyphs: [tiles, slots], int64 byte values; slots with 0 (no glyph) or a negative value (unknown) are left out.
        embedding: [V, D], V >= 256, where row b is the embedding of byte b.

    Returns:
        A scalar; 0 if no slot shows a glyph.
    """
    shown = glyphs > NO_GLYPH
    if not bool(shown.any()):
        return tokens.sum() * 0
    cosine = F.normalize(tokens[shown], dim=-1) @ F.normalize(embedding[:256], dim=-1).T
    return F.cross_entropy(cosine / ALIGN_TEMPERATURE, glyphs[shown])
