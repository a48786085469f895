"""Queries, keys and rotary tables of single decoder layers, for computations outside a layer's forward pass.

Shapes: batch = rows of the call; tokens = those of one request; n = tokens of a row; D = width; axes = axes of the
position ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import rotate_half


class RotaryTables(NamedTuple):
    """The rotary embedding at some positions."""

    cos: Tensor
    sin: Tensor
    """[..., head_dim]."""


class AttendingLayer(NamedTuple):
    """A layer that has run or will run, and one request's tokens in it."""

    module: Any
    inputs: Tensor
    """[tokens, D]."""

    keys: Tensor
    """[key_heads, tokens, head_dim], rotary embedding applied."""


class DecoderAttention:
    """The attention of transformers' Llama, Qwen2, Qwen3 and Qwen3-MoE; families with another one derive from it."""

    def tables(self, rotary: Any, hidden: Tensor, positions: Tensor) -> RotaryTables:
        """Return the rotary embedding [batch, n, head_dim] at `positions` [axes, batch, n], in the dtype of
        `hidden`."""
        (places,) = positions
        if "dynamic" in rotary.rope_type:
            # Such a table keeps the base of the longest sequence so far. A short input resets it, so that every segment
            # has the base of its own length.
            rotary(hidden, torch.zeros_like(places[:, :1]))
        return RotaryTables(*rotary(hidden, places))

    def rotate(self, states: Tensor, tables: RotaryTables) -> Tensor:
        """Apply the rotary embedding [..., head_dim] to queries or keys [..., heads, head_dim]."""
        cos, sin = (table.unsqueeze(-2).to(states) for table in tables)
        rotated: Tensor = states * cos + rotate_half(states) * sin
        return rotated

    def queries(self, layer: Any, inputs: Tensor, tables: RotaryTables) -> Tensor:
        """Return [..., heads, head_dim] for a layer's inputs [..., D]."""
        attention = layer.self_attn
        states = attention.q_proj(layer.input_layernorm(inputs)).unflatten(-1, (-1, attention.head_dim))
        if getattr(attention, "q_norm", None) is not None:
            states = attention.q_norm(states)
        return self.rotate(states, tables)

    def keys(self, layer: Any, normed: Tensor, tables: RotaryTables) -> Tensor:
        """Return [..., key_heads, head_dim] for a layer's normalised inputs [..., D]."""
        attention = layer.self_attn
        keys = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))
        if getattr(attention, "k_norm", None) is not None:
            keys = attention.k_norm(keys)
        return self.rotate(keys, tables)

    def keys_and_values(self, layer: Any, inputs: Tensor, tables: RotaryTables) -> tuple[Tensor, Tensor]:
        """Return [..., key_heads, head_dim] each, for a layer's inputs [..., D]."""
        normed = layer.input_layernorm(inputs)
        values = layer.self_attn.v_proj(normed).unflatten(-1, (-1, layer.self_attn.head_dim))
        return self.keys(layer, normed, tables), values

    def rows_to_come(self, layer: Any, inputs: Tensor, tables: RotaryTables) -> Callable[[Tensor], Tensor]:
        """Return a function for rows of the attention weights of a layer that hasn't run; see
        `LayerState.next_attention`.

        Args:
            layer: a layer that hasn't run yet.
            inputs: [tokens, D], of one request.
            tables: [tokens, head_dim].
        """

        def rows_of(queries: Tensor) -> Tensor:
            keys = self.keys(layer, layer.input_layernorm(inputs), tables).transpose(0, 1)
            return self.rows(AttendingLayer(layer, inputs, keys), tables)(queries)

        return rows_of

    def rows(self, attending: AttendingLayer, tables: RotaryTables) -> Callable[[Tensor], Tensor]:
        """Return a function for rows of a layer's softmax attention weights; see `LayerState.attention`."""

        module, inputs, keys = attending
        in_float32: list[Tensor] = []  # computed once, for callers that need many rows

        def rows_of(queries: Tensor) -> Tensor:
            if not in_float32:
                in_float32.append(keys.float().transpose(1, 2)[:, None])
            own = RotaryTables(tables.cos[queries], tables.sin[queries])
            query = self.queries(module, inputs[queries], own).to(keys.device)
            # Heads of a group share their keys: grouped, nothing is repeated in memory.
            grouped = query.transpose(0, 1).unflatten(0, (len(keys), -1)).float()  # [key_heads, group, rows, head_dim]
            logits: Tensor = grouped @ in_float32[0] * module.self_attn.scaling
            behind = torch.arange(keys.shape[1], device=keys.device) > queries.to(keys.device)[:, None]
            weights = logits.masked_fill(behind, float("-inf")).softmax(dim=-1)
            return weights.flatten(0, 1).to(inputs.device)

        return rows_of


LLAMA_LIKE = DecoderAttention()
"""The attention of the decoders named above."""
