"""Parts that act between the decoder's layers.

Shapes: tokens = all of one request's tokens, without padding; tiles = those of one request; n = tokens of a tile; D =
decoder width; C = vision width; axes = of position ids (1, or 3 in M-RoPE).
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
    """The tokens of one request that a decoder layer is to work on."""

    source: Tensor
    """[next], int64: indices of the tokens that go on, ascending, every text token among them; -1 in the place of a new
    visual token."""

    new: Tensor | None = None
    """[new, D]: the new tokens, in order. Where they only stand for others, each in its place, nothing moves; otherwise
    they have no position of their own and need a part that renumbers."""


@dataclass(frozen=True)
class LayerState:
    """One request right before a decoder layer: what a part decides from."""

    key: str
    layer: int
    """The layer that comes next, 0..num_layers - 1."""

    num_layers: int
    hidden: Tensor
    """[tokens, D]: what the previous layer made; before layer 0, the embeddings."""

    is_visual: Tensor
    """[tokens], bool."""

    positions: Tensor
    """[axes, tokens], int64: position ids of these tokens so far."""

    visual_tokens: tuple[int, ...]
    """[layer]: how many visual tokens each of the layers so far worked on."""

    prepared: Any
    """What the part's `prepare` returned for this request."""

    projected: Tensor | None
    """[tiles, n, D], of this request: what the part's `project` made before this layer."""

    cos: Tensor
    sin: Tensor
    """[tokens, head_dim], float32: the rotary embedding at `positions`."""

    attention_rows: Callable[[Tensor], Tensor] | None
    """What `attention` calls; None before layer 0."""

    next_attention_rows: Callable[[Tensor], Tensor]
    """What `next_attention` calls."""

    cached_keys: Tensor | None
    """What `previous_keys` is; None before layer 0, and where a training run keeps no cache."""

    final_norm: Callable[[Tensor], Tensor]
    """The norm behind the decoder's last layer, [..., D] -> [..., D], for parts that compare tokens by what a layer
    made of them."""

    def attention(self, queries: Tensor) -> Tensor:
        """Rows of the previous layer's softmax attention weights.

        Computed from the layer's own queries and keys for these rows alone, so the model keeps its fast kernel, and no
        second pass through the layer touches the cache.

        Args:
            queries: [rows], int64: indices of the tokens that look.

        Returns:
            [heads, rows, tokens], float32; zero where a key stands behind its query.

        Raises:
            RuntimeError: before layer 0, where nothing has attended yet.
            FloatingPointError: a row is NaN.
        """
        if self.attention_rows is None:
            raise RuntimeError("a part asked for attention weights before layer 0; expected layer 1 or later")
        return self._checked(self.attention_rows(queries))

    def next_attention(self, queries: Tensor) -> Tensor:
        """Rows of the softmax attention weights that the coming layer would have on the tokens in their present places.

        Costs that layer's norm and key projection of all tokens, each time it is called. The layer computes its own
        again: on fewer tokens, and where the part renumbers, at other positions.

        Args:
            queries: [rows], int64: indices of the tokens that look.

        Returns:
            [heads, rows, tokens], float32; zero where a key stands behind its query.

        Raises:
            FloatingPointError: a row is NaN.
        """
        return self._checked(self.next_attention_rows(queries))

    @property
    def previous_keys(self) -> Tensor:
        """The previous layer's keys as its cache holds them, rotary embedding applied, [key_heads, tokens, head_dim].

        Raises:
            RuntimeError: before layer 0, or without a cache.
        """
        if self.cached_keys is None:
            raise RuntimeError("a part asked for a layer's cached keys before layer 0 or where no cache is kept")
        return self.cached_keys.to(self.hidden.device)

    def _checked(self, weights: Tensor) -> Tensor:
        self.check_finite("attention", weights[..., 0])  # one logit that is not finite makes a whole row NaN
        return weights

    def check_finite(self, what: str, values: Tensor) -> None:
        """Raises FloatingPointError if tokens would be chosen by NaN or infinite values."""
        if not bool(values.isfinite().all()):
            raise FloatingPointError(
                f"the {what} of {self.key} before layer {self.layer} is NaN or infinite, so no tokens can be chosen by "
                "it. Check the checkpoint's weights; where they are sound, another dtype= has room for larger numbers."
            )


class DecoderPart(Part):
    """Which tokens a decoder layer works on.

    It is asked request by request, in prefill only, and never about a request without visual tokens. What it decides
    holds for the whole answer.
    """

    place = DECODER
    renumbers: bool = False
    """Whether the tokens that go on take positions 0, 1, 2, ... instead of keeping their own; on each axis, where a
    family has several."""

    needs_vit_tokens: ClassVar[bool] = False
    """Whether `project` is to see the vision encoder's tokens."""

    needs_whole_tiles: ClassVar[bool] = False
    """Whether every tile has to come with its full number of visual tokens: nothing may leave before the decoder."""

    def bind(self, facts: ModelFacts, modules: Mapping[str, Any]) -> DecoderPart:
        """The part for one model: itself, unless it computes with modules of the checkpoint's parts, by their name."""
        return self

    @abstractmethod
    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers, counted from 0, before which tokens may change."""

    def prepare(self, request: RequestPrompt) -> Any:
        """Anything about a request that is to be known from the decoder's input; found again in `state.prepared`."""

    def project(self, layer: int, vit_tokens: Tensor) -> Tensor | None:
        """New vectors [tiles, n, D] of all requests' vision tokens [tiles, 1 + h*w, C], made when `layer` is reached.

        A request finds those of its tiles in `state.projected`; they are not kept.
        """
        return None

    @abstractmethod
    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """The tokens that a layer is to work on; None for all there are, as they are. Text always stays."""

    def num_joining(self, num_visual: int, facts: ModelFacts) -> int:
        """Tokens by which a request of so many visual tokens can grow between the layers."""
        return 0
