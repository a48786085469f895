"""Differentiable answer logits of a model whose token count changes between decoder layers (LVTC).

The decoder's output is longer than its input, so answer tokens are located by the input columns that it reports.

Shapes: rows of a batch, N = token ids, tiles = tiles of all rows, answers = answer tokens in the order of the rows;
V = vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.small.data.batches import Batch


def lvtc_logits(model: VicoInternVL, batch: Batch, vit_tokens: Tensor) -> Tensor:
    """Return the logits that predict each answer token of a training batch, as `decoding.answer_logits` does.

    Args:
        model: a model with its decoder part: `model.use_decoder_part(registry.build("lvtc").decoder)`.
        batch: the documents; every tile has its full length.
        vit_tokens: [tiles, 1 + h*w, C].

    Returns:
        [answers, V], float32, in the order of `batch.answers`.

    Raises:
        RuntimeError: a document has several questions; each would need its own mask in both stages.
    """
    expanded = batch.expand(torch.full((len(vit_tokens),), model.num_high_tokens))
    if expanded.has_branches:
        raise RuntimeError("LVTC got a batch with several questions per document; make it with max_questions=1")
    return changing_logits(model, expanded.input_ids, expanded.is_answer, vit_tokens)


def changing_logits(
    model: VicoInternVL,
    input_ids: Tensor,
    is_answer: Tensor,
    vit_tokens: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Return the logits that predict each answer token, with teacher forcing.

    A token right after an image is predicted by the image's last token.

    Args:
        model: a model with a decoder part.
        input_ids: [rows, N], every tile at full length. Right-padded rows need no mask, because attention is causal.
        is_answer: [rows, N], bool: the tokens to predict; the first token of a row must not be one.
        vit_tokens: [tiles, 1 + h*w, C], in the order of the rows.
        attention_mask: [rows, N], for left-padded rows.

    Returns:
        [answers, V], float32.

    Raises:
        RuntimeError: the model has no decoder part, or the mask marks right-padded rows.
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
