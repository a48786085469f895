"""Answer logits where tokens join or leave between the decoder's layers (LVTC), with gradients.

The decoder's output is then longer than its input, so the answers are found again by the columns that it came from.

Shapes: rows of a batch, N = ids, tiles = all rows', answers = answer tokens, row after row; V = vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.small.data.batches import Batch


def lvtc_logits(model: VicoInternVL, batch: Batch, vit_tokens: Tensor) -> Tensor:
    """Logits that predict each answer token of a training batch, as `decoding.answer_logits` gives them.

    Args:
        model: with its part in the decoder: `model.use_decoder_part(registry.build("lvtc").decoder)`.
        batch: documents; every tile comes at full length.
        vit_tokens: [tiles, 1 + h*w, C].

    Returns:
        [answers, V], float32, in the order of `batch.answers`.

    Raises:
        RuntimeError: a document asks several questions. Each would need a mask of its own in both stages.
    """
    expanded = batch.expand(torch.full((len(vit_tokens),), model.num_high_tokens))
    if expanded.has_branches:
        raise RuntimeError("a batch with several questions a document came to LVTC; make it with max_questions=1")
    return changing_logits(model, expanded.input_ids, expanded.is_answer, vit_tokens)


def changing_logits(
    model: VicoInternVL,
    input_ids: Tensor,
    is_answer: Tensor,
    vit_tokens: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Logits that predict each answer token, teacher-forced; the first behind an image is predicted by its last token.

    Args:
        model: with a part in its decoder.
        input_ids: [rows, N], every tile at full length. Right-padded rows need no mask: attention is causal.
        is_answer: [rows, N], bool: the tokens to predict; none of them first in its row.
        vit_tokens: [tiles, 1 + h*w, C], row after row.
        attention_mask: [rows, N], for left-padded rows.

    Returns:
        [answers, V], float32.

    Raises:
        RuntimeError: the model has no part in its decoder; or rows that are right-padded by a mask.
    """
    decoder = model.language_model.model
    if not isinstance(decoder, CompressingDecoder):
        raise RuntimeError("the model's decoder has no part that changes tokens; call model.use_decoder_part() first")
    visual = model.visual_tokens(vit_tokens, torch.zeros(len(vit_tokens), dtype=torch.bool))
    output = decoder(
        inputs_embeds=model.embed(input_ids, visual.tokens),
        attention_mask=attention_mask,
        prompt=model.prompt(input_ids, [""] * len(input_ids), vit_tokens, visual.counts),
        use_cache=False,
    )
    is_predicted = (output.columns >= 0) & is_answer.to(output.columns.device).gather(1, output.columns.clamp(min=0))
    rows, columns = is_predicted.nonzero(as_tuple=True)
    logits: Tensor = model.language_model.lm_head(output.last_hidden_state[rows, columns - 1])
    return logits.float()
