"""The forward pass that all stages and the evaluator share: answer logits of a batch under a routing.

Shapes: docs, tiles as in `data`; answers = answer tokens of the batch, in the order of the documents; V = vocabulary.
"""

from __future__ import annotations

from torch import Tensor

from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.tiling import normalise
from vico_eval.training.small.data.batches import Batch


def encode(model: VicoInternVL, batch: Batch) -> Tensor:
    """Return the vision tokens of a batch, [tiles, 1 + h*w, C]."""
    return model.encode_tiles(normalise(batch.tiles))


def answer_logits(model: VicoInternVL, batch: Batch, visual_tokens: Tensor, counts: Tensor) -> Tensor:
    """Return the logits that predict each answer token, with teacher forcing.

    Row i belongs to the batch's i-th answer token under any routing, so two calls are aligned on the answers although
    their prompts differ in length.

    Args:
        visual_tokens: [M, D], packed in the order of the tiles.
        counts: [tiles], int64: the number of visual tokens of each tile.

    Returns:
        [answers, V], float32.
    """
    expanded = batch.expand(counts)
    embeddings = model.embed(expanded.input_ids, visual_tokens)
    # With right padding and causal attention no token sees the padding, so batches without branches need no mask and
    # attention takes its fast path.
    mask, positions = (expanded.mask(embeddings.dtype), expanded.positions()) if expanded.has_branches else (None, None)
    hidden = model.language_model.model(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    rows, columns = expanded.is_answer.nonzero(as_tuple=True)
    logits: Tensor = model.language_model.lm_head(hidden[rows, columns - 1])
    return logits.float()


def routed_logits(model: VicoInternVL, batch: Batch, vit_tokens: Tensor, compressed: Tensor) -> Tensor:
    """Return answer logits [answers, V] with tiles routed by `compressed`, [tiles] bool."""
    visual = model.visual_tokens(vit_tokens, compressed)
    return answer_logits(model, batch, visual.tokens, visual.counts)
