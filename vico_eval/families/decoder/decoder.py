"""A decoder whose set of tokens may change between its layers, on transformers' own layers.

`CompressingDecoder` stands in the place of a causal language model's base model (Qwen3, Qwen3-MoE, Qwen2, Llama) and
runs that model's layers. Before the layers that its part names, the part says for every request which tokens go on and
which new ones join; they are packed again, so a token that leaves takes no position in later layers and no entry in
their cache, and one that joins takes none in earlier ones. What leaves or joins is decided once, in prefill.

Shapes: batch = rows of the call, a request's beams next to each other; N = prompt tokens; n = tokens of a segment, that
is of a run of layers with one set of tokens; tokens = a single request's, without padding; D = width; L = layers;
tiles = all requests'; C = vision width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import MoeModelOutputWithPast

from vico_eval.errors import CheckpointError
from vico_eval.families.decoder.segments import (
    Prompt,
    PromptCache,
    Segment,
    change_tokens,
    check_next_tokens,
    first_segment,
)
from vico_eval.families.decoder.token_selection import (
    LayerState,
    NextTokens,
    PreviousLayer,
    RequestPrompt,
    TokenSelector,
)


@dataclass
class DecoderOutput(MoeModelOutputWithPast):
    """transformers' own, and after a prefill where each of its columns stood in the input."""

    columns: Tensor | None = None
    """[batch, n], int64; -1 for padding and for tokens that joined. None after later calls with the same cache."""


class CompressingDecoder(nn.Module):
    """A base model's layers, with a part that takes tokens out or puts tokens in between them.

    Its submodules are the base model's own and carry the same names, so weights are found and saved as before.

    Args:
        base: transformers' `Qwen3Model`, `Qwen3MoeModel`, `Qwen2Model` or `LlamaModel`.
        part: says which tokens go on and which join.

    Raises:
        CheckpointError: the decoder has layers with a sliding window.
    """

    def __init__(self, base: Any, part: TokenSelector) -> None:
        super().__init__()
        self.config = base.config
        if {*(getattr(self.config, "layer_types", None) or ()), "full_attention"} != {"full_attention"}:
            raise CheckpointError(
                "the checkpoint's decoder has layers with sliding attention, and methods in the decoder need full "
                "attention in every layer. Choose a method of another place."
            )
        self.embed_tokens = base.embed_tokens
        self.layers = base.layers
        self.norm = base.norm
        self.rotary_emb = base.rotary_emb
        self.part = part
        # In a tuple, so that it is no submodule and every weight keeps its one name.
        self._base = (base,)

    @property
    def base(self) -> Any:
        """The model that this one stands for."""
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
        """Hidden states [batch, n, D] of the tokens that the last layer worked on, left-padded.

        Args:
            input_ids: [batch, N], or `inputs_embeds`.
            attention_mask: [batch, N]; padding stands left.
            position_ids: [batch, N]; by default 0, 1, 2, ...
            past_key_values: the batch's cache. The first call with it is the prefill.
            inputs_embeds: [batch, N, D].
            use_cache: False returns no cache.
            prompt: instead of a cache. Columns behind the prompt's are an answer, which no part sees or takes from.
            **arguments: passed on to the layers.

        Raises:
            RuntimeError: neither cache nor prompt, a batch that isn't padded left, or a prefill in pieces.
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
            columns = cache.segments[-1].columns
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
        answer = segment.length - cache.prompt.is_visual.shape[1]
        acting = self.part.layers(len(self.layers))
        prepared = self._prepare(hidden, cache.prompt, segment, answer)
        tables = self._tables(hidden, segment)
        inputs = rotary = mask = None
        for index, layer in enumerate(self.layers):
            if index in acting:
                asked = self._ask(index, inputs, hidden, tables, segment, cache, prepared, answer)
                if any(entry is not None for entry in asked):
                    hidden, changed = change_tokens(hidden, segment, asked, answer, index, self.part.renumbers)
                    if changed is not segment:
                        segment, tables = changed, self._tables(hidden, changed)
            if not cache.segments or cache.segments[-1] is not segment:
                cache.segments.append(segment)
                rotary = tuple(table.to(hidden) for table in tables)
                mask = self._mask(hidden, segment.is_real)
            inputs = hidden
            # No position ids: with gaps in them flash attention takes a sequence for several packed ones.
            hidden = layer(
                hidden,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                position_embeddings=rotary,
                **arguments,
            )
            cache.count_layer(segment)
        return hidden

    def _continue(self, hidden: Tensor, cache: PromptCache, arguments: dict[str, Any]) -> Tensor:
        """Further tokens [batch, new, D] behind what the cache holds."""
        batch, new = hidden.shape[:2]
        starts = [segment.first_layer for segment in cache.segments]
        rotary = mask = None
        for index, layer in enumerate(self.layers):
            if index in starts:
                segment = cache.segments[starts.index(index)]
                layer_cache = Cache(layers=[cache.layers[index]])
                appended = layer_cache.get_seq_length() - segment.length
                steps = torch.arange(1 + appended, 1 + appended + new, device=segment.positions.device)
                rotary = self._rotary(hidden, (segment.positions[:, -1:] + steps).to(hidden.device))
                answer = segment.is_real.new_ones(batch, appended + new)
                # A cache of this layer alone: transformers would take the first layer's length for all of them.
                mask = self._mask(hidden, torch.cat([segment.is_real, answer], dim=1), layer_cache)
            hidden = layer(
                hidden,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                position_embeddings=rotary,
                **arguments,
            )
        return hidden

    def _tables(self, hidden: Tensor, segment: Segment) -> Any:
        """cos and sin of a segment, in float32 for the parts; cast, they are what transformers gives its layers."""
        return self._rotary(hidden.new_zeros((), dtype=torch.float32), segment.positions)

    def _rotary(self, hidden: Tensor, positions: Tensor) -> Any:
        if "dynamic" in self.rotary_emb.rope_type:
            # Such a table keeps the base of the longest sequence that it has seen; a short one brings it back, so that
            # every segment has the base of its own length.
            self.rotary_emb(hidden, torch.zeros_like(positions[:, :1]))
        return self.rotary_emb(hidden, positions)

    def _mask(self, hidden: Tensor, is_real: Tensor, layer_cache: Cache | None = None) -> Any:
        """What the model's attention implementation wants as mask; often None, which keeps kernels fastest."""
        return create_causal_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=is_real, past_key_values=layer_cache
        )

    def _prepare(self, hidden: Tensor, prompt: Prompt, segment: Segment, answer: int) -> list[Any]:
        beams = len(hidden) // len(prompt.keys)
        prepared = []
        for request, key in enumerate(prompt.keys):
            row = request * beams
            span = slice(segment.starts[row], segment.length - answer)
            entry = RequestPrompt(key, hidden[row, span], segment.is_visual[row, span])
            prepared.append(self.part.prepare(entry) if segment.visual_counts[row] else None)
        return prepared

    def _ask(
        self,
        index: int,
        inputs: Tensor | None,
        hidden: Tensor,
        tables: Any,
        segment: Segment,
        cache: PromptCache,
        prepared: list[Any],
        answer: int,
    ) -> list[NextTokens | None]:
        """What each row's tokens are to be in layer `index`, [batch]; asked once a request."""
        cos, sin = (table.expand(len(hidden), -1, -1).to(hidden.device) for table in tables)
        projected = self._project(index, cache.prompt)
        beams = len(hidden) // len(cache.prompt.keys)
        asked: list[NextTokens | None] = []
        for request, key in enumerate(cache.prompt.keys):
            row = request * beams
            entry = None
            if segment.visual_counts[row]:
                span = slice(segment.starts[row], segment.length - answer)
                previous = None
                # No keys where a training run recomputes its layers, which takes their cache away.
                keys: Tensor | None = None if inputs is None else cache.layers[index - 1].keys  # type: ignore[union-attr]
                if inputs is not None and keys is not None:
                    previous = PreviousLayer(
                        self.layers[index - 1], inputs[row, span].to(hidden.device), keys[row, :, span]
                    )
                state = LayerState(
                    key=key,
                    layer=index,
                    num_layers=len(self.layers),
                    hidden=hidden[row, span],
                    is_visual=segment.is_visual[row, span].to(hidden.device),
                    positions=segment.positions[row, span].to(hidden.device),
                    visual_tokens=cache.visual_tokens_per_layer(request),
                    prepared=prepared[request],
                    projected=projected[request],
                    cos=cos[row, span],
                    sin=sin[row, span],
                    _previous=previous,
                )
                entry = self.part.next_tokens(state)
                if entry is not None:
                    check_next_tokens(state, entry)
            asked += [entry] * beams
        return asked

    def _project(self, index: int, prompt: Prompt) -> list[Tensor | None]:
        """What the part makes of each request's vision tokens, [requests]; all tiles of the batch at once."""
        projected = None
        if prompt.vit_tokens is not None and len(prompt.vit_tokens):
            projected = self.part.project(index, prompt.vit_tokens)
        return [None] * len(prompt.keys) if projected is None else list(projected.split(prompt.num_tiles))
