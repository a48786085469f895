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

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import MoeModelOutputWithPast

from vico_eval.errors import CheckpointError
from vico_eval.internvl.token_selection import LayerState, NextTokens, PreviousLayer, RequestPrompt, TokenSelector


@dataclass(frozen=True)
class Prompt:
    """What parts may know of a batch beside its embeddings."""

    is_visual: Tensor
    """[requests, N], bool, padding included. A forward pass over prompt and answer has more columns than N."""

    keys: tuple[str, ...]
    """[requests]: document keys."""

    vit_tokens: Tensor | None = None
    """[tiles, 1 + h*w, C], request after request, for a part that projects them anew."""

    num_tiles: tuple[int, ...] = ()
    """[requests]: how many of those are each one's."""


@dataclass
class DecoderOutput(MoeModelOutputWithPast):
    """transformers' own, and after a prefill where each of its columns stood in the input."""

    columns: Tensor | None = None
    """[batch, n], int64; -1 for padding and for tokens that joined. None after later calls with the same cache."""


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

    columns: Tensor
    """[batch, n], int64: where in the input a token stood; -1 for padding and for tokens that joined."""

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
        segment = _first_segment(hidden, cache.prompt, attention_mask, position_ids)
        answer = segment.length - cache.prompt.is_visual.shape[1]
        acting = self.part.layers(len(self.layers))
        prepared = self._prepare(hidden, cache.prompt, segment, answer)
        tables = self._tables(hidden, segment)
        inputs = rotary = mask = None
        for index, layer in enumerate(self.layers):
            if index in acting:
                asked = self._ask(index, inputs, hidden, tables, segment, cache, prepared, answer)
                if any(entry is not None for entry in asked):
                    hidden, changed = _change(hidden, segment, asked, answer, index, self.part.renumbers)
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

    def _tables(self, hidden: Tensor, segment: _Segment) -> Any:
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

    def _prepare(self, hidden: Tensor, prompt: Prompt, segment: _Segment, answer: int) -> list[Any]:
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
        segment: _Segment,
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
                    _check(state, entry)
            asked += [entry] * beams
        return asked

    def _project(self, index: int, prompt: Prompt) -> list[Tensor | None]:
        """What the part makes of each request's vision tokens, [requests]; all tiles of the batch at once."""
        projected = None
        if prompt.vit_tokens is not None and len(prompt.vit_tokens):
            projected = self.part.project(index, prompt.vit_tokens)
        return [None] * len(prompt.keys) if projected is None else list(projected.split(prompt.num_tiles))


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
    columns = torch.arange(length, device=hidden.device).where(is_real, -1)
    return _Segment(0, is_real, is_visual & is_real, position_ids.to(hidden.device).expand(batch, length), columns)


def _change(
    hidden: Tensor,
    segment: _Segment,
    asked: list[NextTokens | None],
    answer: int,
    layer: int,
    renumbers: bool,
) -> tuple[Tensor, _Segment]:
    """Hidden states [batch, n', D] as asked for, packed to the right, and their segment; the same one if none moved."""
    device = hidden.device
    end = segment.length - answer
    rows = []
    any_moves = False
    for row, entry in enumerate(asked):
        start = segment.starts[row]
        columns = before = torch.arange(start, segment.length, device=device)
        if entry is not None:
            source = entry.source.to(device)
            columns = torch.cat([torch.where(source < 0, -1, start + source), before[end - start :]])
        is_new_column = columns < 0
        if len(columns) == len(before) and bool((is_new_column | (columns == before)).all()):
            columns = before  # each new token stands for the old one in its place
        else:
            any_moves = True
            if not renumbers and bool(is_new_column.any()):
                raise RuntimeError(
                    "a part made new tokens and keeps positions; only renumbered tokens give them a place"
                )
        rows.append((columns, is_new_column))
    length = max(len(columns) for columns, _ in rows) if any_moves else segment.length
    source = torch.zeros(len(rows), length, dtype=torch.long, device=device)
    is_real = torch.zeros(len(rows), length, dtype=torch.bool, device=device)
    is_new = torch.zeros_like(is_real)
    for row, (columns, is_new_column) in enumerate(rows):
        span = slice(length - len(columns), None)
        source[row, span], is_new[row, span], is_real[row, span] = columns, is_new_column, True
    joins = source < 0
    source = source.clamp(min=0)
    packed = hidden.gather(1, source[..., None].expand(-1, -1, hidden.shape[-1])) if any_moves else hidden
    new = [entry.new.to(hidden) for entry in asked if entry is not None and entry.new is not None]
    if new:
        packed = packed.masked_scatter(is_new[..., None], torch.cat(new))
    if not any_moves:
        return packed, segment
    is_visual = (segment.is_visual.to(device).gather(1, source) | joins) & is_real
    if renumbers:
        positions = (is_real.long().cumsum(dim=1) - 1).clamp(min=0)
    else:
        positions = segment.positions.to(device).gather(1, source)
    origins = segment.columns.to(device).gather(1, source).masked_fill(joins | ~is_real, -1)
    return packed, _Segment(layer, is_real, is_visual, positions, origins)


def _check(state: LayerState, asked: NextTokens) -> None:
    is_new = asked.source < 0
    kept = asked.source[~is_new]
    stays = torch.zeros_like(state.is_visual)
    stays[kept] = True
    if bool((~stays & ~state.is_visual).any()) or bool((kept.diff() <= 0).any()):
        raise RuntimeError(f"a part dropped text of {state.key}, or reordered its tokens, before layer {state.layer}")
    expected, made = int(is_new.sum()), 0 if asked.new is None else len(asked.new)
    if made != expected:
        raise RuntimeError(
            f"a part left places for {expected} new tokens of {state.key} before layer {state.layer} and made {made}"
        )
