"""A decoder whose set of tokens may change between layers, built on transformers' own layers.

`CompressingDecoder` replaces a causal language model's base model (Qwen3, Qwen3-MoE, Qwen2, Llama) and runs that
model's layers. Before the layers that its part names, the part chooses for every request which tokens stay and which
new ones are added. The batch is then packed again: a removed token occupies no column in later layers and no entry in
their KV cache, and an added one occupies none in earlier layers. These choices are made once, in prefill. Features that
a model adds to visual tokens after its first layers (DeepStack) are added to the tokens that remain.

Shapes: batch = rows of the call, with a request's beams next to each other; N = prompt tokens; n = tokens of a segment,
which is a run of layers with the same set of tokens; tokens = those of a single request, without padding; D = width; L
= layers; tiles = those of all requests; C = vision width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import MoeModelOutputWithPast

from vico_eval.errors import CheckpointError
from vico_eval.families.decoder.attention import LLAMA_LIKE, AttendingLayer, DecoderAttention, RotaryTables
from vico_eval.families.decoder.segments import (
    Prompt,
    PromptCache,
    Segment,
    change_tokens,
    check_next_tokens,
    first_segment,
    with_feature,
)
from vico_eval.methods.interface import DecoderPart, LayerState, NextTokens, RequestPrompt
from vico_eval.stages import METHOD, stage


@dataclass
class DecoderOutput(MoeModelOutputWithPast):
    """transformers' output and, after a prefill, the input position of each column."""

    columns: Tensor | None = None
    """[batch, n], int64; -1 for padding and added tokens. None after later calls with the same cache."""


class CompressingDecoder(nn.Module):
    """A base model's layers, with a part that removes or adds tokens between them.

    Its submodules are the base model's own with the same names, so weights are loaded and saved as before.

    Args:
        base: transformers' `Qwen3Model`, `Qwen3MoeModel`, `Qwen2Model` or `LlamaModel`.
        part: chooses the tokens that stay and new ones.
        attention: the layers' attention.

    Raises:
        CheckpointError: the decoder has layers with a sliding window.
    """

    def __init__(self, base: Any, part: DecoderPart, attention: DecoderAttention = LLAMA_LIKE) -> None:
        super().__init__()
        self.config = base.config
        if {*(getattr(self.config, "layer_types", None) or ()), "full_attention"} != {"full_attention"}:
            raise CheckpointError(
                "the checkpoint's decoder has layers with sliding attention, but methods in the decoder need full "
                "attention in every layer. Choose a method that acts before the decoder."
            )
        self.embed_tokens = base.embed_tokens
        self.layers = base.layers
        self.norm = base.norm
        self.rotary_emb = base.rotary_emb
        self.part = part
        self.attention = attention
        # In a tuple, so that it isn't a submodule and every weight has only one name.
        self._base = (base,)

    @property
    def base(self) -> Any:
        """The model that this one replaces."""
        return self._base[0]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: PromptCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        prompt: Prompt | None = None,
        **arguments: Any,
    ) -> DecoderOutput:
        """Return the hidden states [batch, n, D] of the tokens in the last layer, left-padded.

        Args:
            input_ids: [batch, N], or `inputs_embeds`.
            attention_mask: [batch, N], left-padded.
            position_ids: [batch, N] or [axes, batch, N]; by default 0, 1, 2, ...
            past_key_values: the batch's cache; the first call with it is the prefill.
            inputs_embeds: [batch, N, D].
            use_cache: False returns no cache.
            prompt: instead of a cache. Columns after the prompt's are an answer, which parts neither see nor change.
            **arguments: passed on to the layers.

        Raises:
            RuntimeError: there is neither cache nor prompt, the batch isn't left-padded, or the prefill is split.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        cache = PromptCache(self.config, prompt) if past_key_values is None and prompt is not None else past_key_values
        if not isinstance(cache, PromptCache):
            raise RuntimeError("a decoder with a compression method needs to know the prompt; pass a PromptCache")
        columns = None
        if cache.segments:
            hidden = self._continue(inputs_embeds, cache, arguments)
        else:
            hidden = self._prefill(inputs_embeds, cache, attention_mask, position_ids, arguments)
            columns = cache.segments[-1].columns.to(hidden.device)
        return DecoderOutput(
            last_hidden_state=self.norm(hidden),
            past_key_values=None if use_cache is False else cache,
            columns=columns,
        )

    def _prefill(
        self,
        hidden: Tensor,
        cache: PromptCache,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        arguments: dict[str, Any],
    ) -> Tensor:
        segment = first_segment(hidden, cache.prompt, attention_mask, position_ids)
        acting = self.part.layers(len(self.layers))
        before = _BeforeLayer(
            cache=cache,
            answer=segment.length - cache.prompt.is_visual.shape[1],
            segment=segment,
            hidden=hidden,
            tables=self._tables(hidden, segment),
        )
        before.prepared = self._prepare(before)
        added = cache.prompt.added
        places = None if added is None else cache.prompt.visual_places(*hidden.shape[:2])
        rotary = mask = None
        for index, layer in enumerate(self.layers):
            if index in acting:
                self._change(index, before)
            if not cache.segments or cache.segments[-1] is not before.segment:
                cache.segments.append(before.segment)
                rotary = tuple(table.to(before.hidden) for table in before.tables)
                mask = self._mask(before.hidden, before.segment)
            before.inputs = before.hidden
            # No position ids: flash attention would interpret gaps as boundaries of packed sequences.
            before.hidden = layer(
                before.hidden,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                position_embeddings=rotary,
                **arguments,
            )
            if added is not None and places is not None and index < len(added):
                before.hidden = with_feature(before.hidden, before.segment, places, added[index])
            cache.count_layer(before.segment)
        return before.hidden

    def _continue(self, hidden: Tensor, cache: PromptCache, arguments: dict[str, Any]) -> Tensor:
        """Process further tokens [batch, new, D] after those in the cache."""
        new = hidden.shape[1]
        starts = [segment.first_layer for segment in cache.segments]
        rotary = mask = None
        for index, layer in enumerate(self.layers):
            if index in starts:
                segment = cache.segments[starts.index(index)]
                layer_cache = Cache(layers=[cache.layers[index]])
                appended = layer_cache.get_seq_length() - segment.length
                steps = torch.arange(1 + appended, 1 + appended + new, device=segment.positions.device)
                rotary = self.attention.tables(
                    self.rotary_emb, hidden, (segment.positions[..., -1:] + steps).to(hidden.device)
                )
                mask = self._mask(hidden, segment, appended + new, layer_cache)
            hidden = layer(
                hidden,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                position_embeddings=rotary,
                **arguments,
            )
        return hidden

    def _tables(self, hidden: Tensor, segment: Segment) -> RotaryTables:
        """Return cos and sin of a segment, in float32 for the parts; after casting, they equal transformers'."""
        in_float32 = hidden.new_zeros((), dtype=torch.float32)
        return self.attention.tables(self.rotary_emb, in_float32, segment.positions)

    def _mask(self, hidden: Tensor, segment: Segment, answer: int = 0, layer_cache: Cache | None = None) -> Any:
        """Return the mask for the model's attention implementation; often None, which allows the fastest kernels.

        The padding is known on the CPU, so no synchronisation is needed.

        Args:
            hidden: [batch, n, D], the input that the mask is for.
            segment: the layers' segment.
            answer: number of columns after the segment's.
            layer_cache: the cache of one layer, because transformers would use the first layer's length for all.
        """
        is_padded = any(segment.starts)
        is_real = torch.cat([segment.is_real, segment.is_real.new_ones(len(hidden), answer)], dim=1)
        return create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=is_real.to(hidden.device) if is_padded else None,
            past_key_values=layer_cache,
            allow_is_causal_skip=not is_padded,
        )

    def _prepare(self, before: _BeforeLayer) -> list[Any]:
        """Return the part's prepared state of each request, [requests]."""
        segment, prepared = before.segment, []
        for key, row in before.requests:
            span = before.span(row)
            entry = RequestPrompt(key, before.hidden[row, span], segment.is_visual[row, span].to(before.hidden.device))
            with stage(METHOD):
                prepared.append(self.part.prepare(entry) if segment.visual_counts[row] else None)
        return prepared

    def _change(self, index: int, before: _BeforeLayer) -> None:
        """Let the part choose the tokens of layer `index`, and change the hidden states accordingly."""
        asked = self._ask(index, before)
        if any(entry is not None for entry in asked):
            before.hidden, changed = change_tokens(
                before.hidden, before.segment, asked, before.answer, index, self.part.renumbers
            )
            if changed is not before.segment:
                before.segment, before.tables = changed, self._tables(before.hidden, changed)

    def _ask(self, index: int, before: _BeforeLayer) -> list[NextTokens | None]:
        """Return the chosen tokens of each row in layer `index`, [batch]; the part is called once per request."""
        projected = self._project(index, before.cache.prompt)
        asked: list[NextTokens | None] = []
        for request, (_, row) in enumerate(before.requests):
            entry = None
            if before.segment.visual_counts[row]:
                state = self._state(index, before, request, projected[request])
                with stage(METHOD):
                    entry = self.part.next_tokens(state)
                if entry is not None:
                    entry = entry._replace(source=entry.source.cpu())  # this synchronises with the device
                    check_next_tokens(state, before.segment.is_visual[row, before.span(row)], entry)
            asked += [entry] * before.beams
        return asked

    def _state(self, index: int, before: _BeforeLayer, request: int, projected: Tensor | None) -> LayerState:
        """Return the state of a request before layer `index`, as the part sees it."""
        key, row = before.requests[request]
        segment, device, span = before.segment, before.hidden.device, before.span(row)
        hidden = before.hidden[row, span]
        tables = RotaryTables(
            *(table.expand(len(before.hidden), -1, -1)[row, span].to(device) for table in before.tables)
        )
        # No keys if a training recomputes its layers, because their cache is then missing.
        cached: Tensor | None = None if before.inputs is None else before.cache.layers[index - 1].keys  # type: ignore[union-attr]
        keys = None if cached is None else cached[row, :, span]
        rows = None
        if before.inputs is not None and keys is not None:
            previous = AttendingLayer(self.layers[index - 1], before.inputs[row, span].to(device), keys)
            rows = self.attention.rows(previous, tables)
        return LayerState(
            key=key,
            layer=index,
            num_layers=len(self.layers),
            hidden=hidden,
            is_visual=segment.is_visual[row, span].to(device),
            positions=segment.positions[:, row, span].to(device),
            visual_tokens=before.cache.visual_tokens_per_layer(request),
            prepared=before.prepared[request],
            projected=projected,
            cos=tables.cos,
            sin=tables.sin,
            attention_rows=rows,
            next_attention_rows=self.attention.rows_to_come(self.layers[index], hidden, tables),
            cached_keys=keys,
            final_norm=self._final_norm,
        )

    def _final_norm(self, hidden: Tensor) -> Tensor:
        """Apply the final norm on the device of `hidden`; under a device map the norm is with the last layer."""
        normed: Tensor = self.norm(hidden)
        return normed.to(hidden.device)

    def _project(self, index: int, prompt: Prompt) -> list[Tensor | None]:
        """Return the part's projection of each request's vision tokens, [requests], computed for all tiles of the batch
        at once."""
        projected = None
        if prompt.vit_tokens is not None and len(prompt.vit_tokens):
            with stage(METHOD):
                projected = self.part.project(index, prompt.vit_tokens)
        return [None] * len(prompt.keys) if projected is None else list(projected.split(prompt.num_tiles))


@dataclass
class _BeforeLayer:
    """The state of a prefill before a layer."""

    cache: PromptCache
    answer: int
    """Number of columns after the prompts'."""

    segment: Segment
    hidden: Tensor
    """[batch, n, D]: input of the layer."""

    tables: RotaryTables
    """The segment's tables, in float32."""

    inputs: Tensor | None = None
    """[batch, n, D]: input of the previous layer."""

    prepared: list[Any] = field(default_factory=list)
    """[requests]."""

    @property
    def beams(self) -> int:
        """Number of rows per request."""
        return len(self.hidden) // len(self.cache.prompt.keys)

    @property
    def requests(self) -> list[tuple[str, int]]:
        """Key and first row of each request."""
        return [(key, number * self.beams) for number, key in enumerate(self.cache.prompt.keys)]

    def span(self, row: int) -> slice:
        """The columns of a row's prompt."""
        return slice(self.segment.starts[row], self.segment.length - self.answer)
