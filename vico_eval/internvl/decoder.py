"""A decoder whose set of tokens may change between its layers, on transformers' own layers.

`CompressingDecoder` stands in the place of a causal language model's base model (Qwen3, Qwen3-MoE, Qwen2, Llama) and
runs that model's layers. After the layers that its part names, the part says for every request which tokens go on; they
are packed again, so a token that leaves takes no position in later layers and no entry in their cache. What leaves is
decided once, in prefill.

Shapes: batch = rows of the call, a request's beams next to each other; N = prompt tokens; n = tokens of a segment, that
is of a run of layers with one set of tokens; tokens = a single request's, without padding; D = width; L = layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import MoeModelOutputWithPast

from vico_eval.errors import CheckpointError
from vico_eval.internvl.token_selection import KeptTokens, LayerState, RequestPrompt, TokenSelector


@dataclass(frozen=True)
class Prompt:
    """What parts may know of a batch beside its embeddings."""

    is_visual: Tensor
    """[requests, N], bool, padding included. A forward pass over prompt and answer has more columns than N."""

    keys: tuple[str, ...]
    """[requests]: document keys."""


@dataclass(frozen=True)
class _Segment:
    """A run of layers in which the batch's tokens are the same."""

    first_layer: int
    is_real: Tensor
    """[batch, n], bool: False at the padding, which stands left."""

    is_visual: Tensor
    """[batch, n], bool."""

    positions: Tensor
    """[batch, n], int64."""

    starts: list[int] = field(init=False)
    """[batch]: length of the padding."""

    visual_counts: list[int] = field(init=False)
    """[batch]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", (~self.is_real).sum(dim=1).tolist())
        object.__setattr__(self, "visual_counts", self.is_visual.sum(dim=1).tolist())

    @property
    def length(self) -> int:
        return self.is_real.shape[1]


class PromptCache(DynamicCache):
    """Keys and values of a batch whose layers hold different numbers of tokens, and what its prompts are.

    Made for one `generate`. Reordering beams needs no more than the base class does: the beams of a request have lost
    the same tokens.
    """

    def __init__(self, config: Any, prompt: Prompt) -> None:
        super().__init__(config=config)
        self.prompt = prompt
        self.segments: list[_Segment] = []
        self._visual_tokens: list[list[int]] = []

    def visual_tokens_per_layer(self, request: int) -> tuple[int, ...]:
        """Visual tokens of a request that each layer worked on in prefill, [L]."""
        return tuple(counts[request] for counts in self._visual_tokens)

    def count_layer(self, segment: _Segment) -> None:
        """Note what the next layer has worked on."""
        beams = len(segment.visual_counts) // len(self.prompt.keys)
        self._visual_tokens.append(segment.visual_counts[::beams])


class CompressingDecoder(nn.Module):
    """A base model's layers, with a part that takes tokens out between them.

    Its submodules are the base model's own and carry the same names, so weights are found and saved as before.

    Args:
        base: transformers' `Qwen3Model`, `Qwen3MoeModel`, `Qwen2Model` or `LlamaModel`.
        part: says which tokens go on.

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
    ) -> MoeModelOutputWithPast:
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
        if cache.segments:
            hidden = self._continue(inputs_embeds, cache, arguments)
        else:
            hidden = self._prefill(inputs_embeds, cache, attention_mask, position_ids, arguments)
        return MoeModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=None if use_cache is False else cache
        )

    def _prefill(
        self,
        hidden: Tensor,
        cache: PromptCache,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        arguments: dict[str, Any],
    ) -> Tensor:
        segment = _first_segment(hidden, cache.prompt, attention_mask, position_ids)
        answer = segment.length - cache.prompt.is_visual.shape[1]
        acting = self.part.layers(len(self.layers))
        prepared = self._prepare(hidden, cache.prompt, segment, answer)
        last_layer = len(self.layers) - 1
        rotary = mask = tables = None
        for index, layer in enumerate(self.layers):
            if rotary is None:
                cache.segments.append(segment)
                # In float32 for the parts; cast, they are what transformers' decoder gives its layers.
                tables = self.rotary_emb(hidden.new_zeros((), dtype=torch.float32), segment.positions)
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
            if index in acting and index < last_layer:
                kept = self._reduce(index, inputs, hidden, tables, cache, prepared, answer)
                if any(entry is not None for entry in kept):
                    hidden, segment = _repack(hidden, segment, kept, answer, index + 1, self.part.renumbers)
                    rotary = None
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
                rotary = self.rotary_emb(hidden, (segment.positions[:, -1:] + steps).to(hidden.device))
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

    def _mask(self, hidden: Tensor, is_real: Tensor, layer_cache: Cache | None = None) -> Any:
        """What the model's attention implementation wants as mask; often None, which keeps kernels fastest."""
        return create_causal_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=is_real, past_key_values=layer_cache
        )

    def _prepare(self, hidden: Tensor, prompt: Prompt, segment: _Segment, answer: int) -> list[Any]:
        beams = len(hidden) // len(prompt.keys)
        prepared = []
        for request, key in enumerate(prompt.keys):
            row = request * beams
            span = slice(segment.starts[row], segment.length - answer)
            entry = RequestPrompt(key, hidden[row, span], segment.is_visual[row, span])
            prepared.append(self.part.prepare(entry) if segment.visual_counts[row] else None)
        return prepared

    def _reduce(
        self,
        index: int,
        inputs: Tensor,
        hidden: Tensor,
        tables: Any,
        cache: PromptCache,
        prepared: list[Any],
        answer: int,
    ) -> list[KeptTokens | None]:
        """What each row keeps, [batch]; asked once a request."""
        segment = cache.segments[-1]
        keys: Tensor = cache.layers[index].keys  # type: ignore[assignment,union-attr]
        cos, sin = (table.expand(len(hidden), -1, -1).to(hidden.device) for table in tables)
        beams = len(hidden) // len(cache.prompt.keys)
        kept: list[KeptTokens | None] = []
        for request, key in enumerate(cache.prompt.keys):
            row = request * beams
            entry = None
            if segment.visual_counts[row]:
                span = slice(segment.starts[row], segment.length - answer)
                state = LayerState(
                    key=key,
                    layer=index,
                    num_layers=len(self.layers),
                    hidden=hidden[row, span],
                    is_visual=segment.is_visual[row, span].to(hidden.device),
                    positions=segment.positions[row, span].to(hidden.device),
                    visual_tokens=cache.visual_tokens_per_layer(request),
                    prepared=prepared[request],
                    cos=cos[row, span],
                    sin=sin[row, span],
                    _module=self.layers[index],
                    _inputs=inputs[row, span].to(hidden.device),
                    _keys=keys[row, :, span],
                )
                entry = self.part.reduce(state)
                if entry is not None:
                    _check_text_stays(state, entry)
            kept += [entry] * beams
        return kept


def _first_segment(
    hidden: Tensor, prompt: Prompt, attention_mask: Tensor | None, position_ids: Tensor | None
) -> _Segment:
    batch, length = hidden.shape[:2]
    requests, prompt_length = prompt.is_visual.shape
    if length < prompt_length or batch % requests:
        raise RuntimeError(
            f"the prompts are [{requests}, {prompt_length}] and the input is [{batch}, {length}]: expected the whole "
            "prompt at once, and the same number of rows for every request"
        )
    is_visual = torch.zeros(batch, length, dtype=torch.bool, device=hidden.device)
    is_visual[:, :prompt_length] = prompt.is_visual.to(hidden.device).repeat_interleave(batch // requests, dim=0)
    is_real = torch.ones_like(is_visual) if attention_mask is None else attention_mask.to(hidden.device).bool()
    if bool((is_real[:, :-1] & ~is_real[:, 1:]).any()):
        raise RuntimeError("the batch's padding stands to the right of tokens; expected it left of every prompt")
    if position_ids is None:
        # Padding counted, as transformers' decoders do where nobody says otherwise; `generate` always says.
        position_ids = torch.arange(length)[None]
    return _Segment(0, is_real, is_visual & is_real, position_ids.to(hidden.device).expand(batch, length))


def _repack(
    hidden: Tensor,
    segment: _Segment,
    kept: list[KeptTokens | None],
    answer: int,
    first_layer: int,
    renumbers: bool,
) -> tuple[Tensor, _Segment]:
    """Hidden states [batch, n', D] of the tokens that go on, packed to the right, and their segment."""
    device = hidden.device
    end = segment.length - answer
    rows = []
    for row, entry in enumerate(kept):
        if entry is None:
            rows.append(torch.arange(segment.starts[row], segment.length, device=device))
            continue
        columns = segment.starts[row] + entry.keep_indices.to(device)
        if entry.merged is not None:
            # -1 holds a merged token's place.
            new = columns.new_full((len(entry.merged),), -1)
            columns = torch.cat([columns[: entry.merge_at], new, columns[entry.merge_at :]])
        rows.append(torch.cat([columns, torch.arange(end, segment.length, device=device)]))
    longest = max(map(len, rows))
    source = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
    is_real = torch.zeros(len(rows), longest, dtype=torch.bool, device=device)
    for row, columns in enumerate(rows):
        source[row, longest - len(columns) :] = columns
        is_real[row, longest - len(columns) :] = True
    is_merged = source < 0
    source = source.clamp(min=0)
    packed = hidden.gather(1, source[..., None].expand(-1, -1, hidden.shape[-1]))
    merged = [entry.merged for entry in kept if entry is not None and entry.merged is not None]
    if merged:
        if not renumbers:
            raise RuntimeError("a part made new tokens and keeps positions; only renumbered tokens give them a place")
        packed[is_merged] = torch.cat(merged).to(packed)
    is_visual = (segment.is_visual.to(device).gather(1, source) | is_merged) & is_real
    if renumbers:
        positions = (is_real.long().cumsum(dim=1) - 1).clamp(min=0)
    else:
        positions = segment.positions.to(device).gather(1, source)
    return packed, _Segment(first_layer, is_real, is_visual, positions)


def _check_text_stays(state: LayerState, kept: KeptTokens) -> None:
    stays = torch.zeros_like(state.is_visual)
    stays[kept.keep_indices] = True
    if bool((~stays & ~state.is_visual).any()) or int(stays.sum()) != len(kept.keep_indices):
        raise RuntimeError(f"a part dropped text of {state.key} or kept a token twice behind layer {state.layer}")
