"""Parts that act between the decoder's layers.

Shapes: tokens = all tokens of one request, without padding; tiles = tiles of one request; n = tokens of a tile; D =
decoder width; C = vision width; axes = axes of the position ids (1, or 3 in M-RoPE).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from vico_eval.methods.interface.facts import DECODER, ModelFacts, Part

if TYPE_CHECKING:
    from torch import Tensor


class RequestPrompt(NamedTuple):
    """One request at the decoder's input."""

    key: str
    embeddings: Tensor
    """[tokens, D]."""

    is_visual: Tensor
    """[tokens], bool."""


class NextTokens(NamedTuple):
    """The tokens of one request that a decoder layer processes."""

    source: Tensor
    """[next], int64: indices of the tokens that go on, ascending, every text token among them; -1 at the place of a new
    visual token."""

    new: Tensor | None = None
    """[new, D]: the new tokens, in order. If each replaces one token in its place, positions stay. Otherwise they have
    no position of their own, and the part must renumber."""


@dataclass(frozen=True)
class LayerState:
    """One request right before a decoder layer: the input of a part's decision."""

    key: str
    layer: int
    """The coming layer, 0..num_layers - 1."""

    num_layers: int
    hidden: Tensor
    """[tokens, D]: output of the previous layer; before layer 0, the embeddings."""

    is_visual: Tensor
    """[tokens], bool."""

    positions: Tensor
    """[axes, tokens], int64: present position ids of these tokens."""

    visual_tokens: tuple[int, ...]
    """[layer]: number of visual tokens that each layer so far processed."""

    prepared: Any
    """What the part's `prepare` returned for this request."""

    projected: Tensor | None
    """[tiles, n, D]: what the part's `project` made for this request before this layer."""

    cos: Tensor
    sin: Tensor
    """[tokens, head_dim], float32: the rotary embedding at `positions`."""

    attention_rows: Callable[[Tensor], Tensor] | None
    """Computes `attention`; None before layer 0."""

    next_attention_rows: Callable[[Tensor], Tensor]
    """Computes `next_attention`."""

    cached_keys: Tensor | None
    """Source of `previous_keys`; None before layer 0, and in training runs that keep no cache."""

    final_norm: Callable[[Tensor], Tensor]
    """The norm after the decoder's last layer, [..., D] -> [..., D], for parts that compare tokens by a layer's
    output."""

    def attention(self, queries: Tensor) -> Tensor:
        """Rows of the previous layer's softmax attention weights.

        Only these rows are computed, from the layer's own queries and keys. The model keeps its fast kernel, and no
        second pass through the layer touches the cache.

        Args:
            queries: [rows], int64: indices of the query tokens.

        Returns:
            [heads, rows, tokens], float32; zero where a key comes after its query.

        Raises:
            RuntimeError: before layer 0, where no layer has attended yet.
            FloatingPointError: a row is NaN.
        """
        if self.attention_rows is None:
            raise RuntimeError("a part asked for attention weights before layer 0; expected layer 1 or later")
        return self._checked(self.attention_rows(queries))

    def next_attention(self, queries: Tensor) -> Tensor:
        """Rows of the softmax attention weights of the coming layer, if it saw the tokens at their present positions.

        Each call costs that layer's norm and key projection of all tokens. The layer computes its own again, for fewer
        tokens and, if the part renumbers, at other positions.

        Args:
            queries: [rows], int64: indices of the query tokens.

        Returns:
            [heads, rows, tokens], float32; zero where a key comes after its query.

        Raises:
            FloatingPointError: a row is NaN.
        """
        return self._checked(self.next_attention_rows(queries))

    @property
    def previous_keys(self) -> Tensor:
        """The previous layer's keys as cached, after rotary embedding, [key_heads, tokens, head_dim].

        Raises:
            RuntimeError: before layer 0, or without a cache.
        """
        if self.cached_keys is None:
            raise RuntimeError("a part asked for a layer's cached keys before layer 0 or where no cache is kept")
        return self.cached_keys.to(self.hidden.device)

    def _checked(self, weights: Tensor) -> Tensor:
        self.check_finite("attention", weights[..., 0])  # a single non-finite logit makes the whole row NaN
        return weights

    def check_finite(self, what: str, values: Tensor) -> None:
        """Raises FloatingPointError if values that rank tokens are NaN or infinite."""
        if not bool(values.isfinite().all()):
            raise FloatingPointError(
                f"the {what} of {self.key} before layer {self.layer} is NaN or infinite, so it can't rank tokens. "
                "Check the checkpoint's weights; if they are sound, pass a dtype= with a larger range."
            )


class DecoderPart(Part):
    """Decides which tokens a decoder layer processes.

    It is called request by request, in prefill only, and never for a request without visual tokens. Its decisions hold
    for the whole answer.
    """

    place = DECODER
    renumbers: bool = False
    """Whether the tokens that go on take positions 0, 1, 2, ... instead of keeping their own; on each axis, where a
    family has several."""

    needs_vit_tokens: ClassVar[bool] = False
    """Whether `project` needs the vision encoder's tokens."""

    needs_whole_tiles: ClassVar[bool] = False
    """Whether every tile must come with all its visual tokens, so that none may leave before the decoder."""

    def bind(self, facts: ModelFacts, modules: Mapping[str, Any]) -> DecoderPart:
        """The part for one model: itself, unless it computes with modules of the checkpoint's parts, keyed by name."""
        return self

    @abstractmethod
    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers, counted from 0, before which tokens may change."""

    def prepare(self, request: RequestPrompt) -> Any:
        """Anything the part needs from a request's decoder input; available later as `state.prepared`."""

    def project(self, layer: int, vit_tokens: Tensor) -> Tensor | None:
        """New vectors [tiles, n, D] from all requests' vision tokens [tiles, 1 + h*w, C], made when `layer` is reached.

        A request finds those of its tiles in `state.projected`. They are not kept after the layer.
        """
        return None

    @abstractmethod
    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """The tokens that a layer processes; None if all stay unchanged. Text always stays."""

    def num_joining(self, num_visual: int, facts: ModelFacts) -> int:
        """Number of tokens by which a request of `num_visual` visual tokens can grow between the layers."""
        return 0
