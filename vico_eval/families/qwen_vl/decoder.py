"""Qwen-VL's text model as a causal language model: prompts are embeddings with positions on three axes.

Shapes: batch = rows of the call; N = prompt tokens; n = tokens of a call; D = width; V = vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from vico_eval.families.decoder.attention import DecoderAttention, RotaryTables
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import Prompt


class MRopeAttention(DecoderAttention):
    """The attention of Qwen2.5-VL's and Qwen3-VL's text models: that of Qwen2 and Qwen3 with three position axes."""

    def tables(self, rotary: Any, hidden: Tensor, positions: Tensor) -> RotaryTables:
        """Return the rotary embedding [batch, n, head_dim] at `positions` [3, batch, n], in the dtype of `hidden`."""
        return RotaryTables(*rotary(hidden, positions))


class QwenDecoder(PreTrainedModel, GenerationMixin):
    """transformers' text model and head, without the vision encoder.

    transformers' whole model takes pixels or token ids and can't process selected visual tokens; its text model can.
    """

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    main_input_name = "input_ids"

    def __init__(self, text_model: Any, head: nn.Module) -> None:
        super().__init__(text_model.config)
        self.model = text_model
        self.lm_head = head
        # transformers falls back to the checkpoint's settings in every `generate`; only the task's settings must apply.
        self.generation_config = GenerationConfig()

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # transformers looks for experts in this class's module; they are in the text model's, which was checked when it
        # was created.
        return True

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.model.embed_tokens  # type: ignore[no-any-return]

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        head: nn.Module = self.lm_head
        return head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        prompt: Prompt | None = None,
        **arguments: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits [batch, n, V].

        Args:
            input_ids: [batch, n], in a decoding step.
            attention_mask: [batch, tokens so far].
            position_ids: [3, batch, n].
            past_key_values: the cache.
            inputs_embeds: [batch, N, D], in a prefill.
            use_cache: False returns no cache.
            logits_to_keep: number of last tokens with logits; 0 for all.
            prompt: in a prefill: which tokens are visual, and what is added to them.
            **arguments: passed on to the layers.
        """
        if isinstance(self.model, CompressingDecoder):
            arguments["prompt"] = prompt
        elif prompt is not None and prompt.added is not None and inputs_embeds is not None:
            arguments |= _features(prompt, inputs_embeds)
        output = self.model(
            input_ids=input_ids if inputs_embeds is None else None,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **arguments,
        )
        hidden = output.last_hidden_state
        logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        return CausalLMOutputWithPast(logits=logits, past_key_values=output.past_key_values)


def _features(prompt: Prompt, embeddings: Tensor) -> dict[str, Any]:
    """Return what transformers' text model adds to visual tokens, for the rows of a call; the same for a request's
    beams."""
    assert prompt.added is not None
    places = prompt.visual_places(*embeddings.shape[:2])
    is_visual = places >= 0
    chosen = places[is_visual].to(prompt.added.device)
    return {
        "visual_pos_masks": is_visual.to(embeddings.device),
        "deepstack_visual_embeds": [feature[chosen] for feature in prompt.added],
    }
