"""What a method sees and returns: four places where it can act, one class of part for each.

A method is at most one part in each place, joined by `+`. A part holds its hyper-parameters (a frozen dataclass, its
`Config`) and no state of any request, so that answers can't depend on what else is in a batch. What it sees is data:
nothing here, and nothing in a method, knows a family of models.

Shapes: n = visual tokens of one request; tokens = all of one request's tokens, without padding; tiles = those of one
request; D = decoder width; C = vision width; d = width of an encoder's key; axes = of position ids (1, or 3 in M-RoPE).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from vico_eval.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

RESOLUTION, CONNECTOR, SELECTION, DECODER = "resolution", "connector", "selection", "decoder"
PLACES = (RESOLUTION, CONNECTOR, SELECTION, DECODER)
"""In the order in which parts act."""

ENCODER_ATTENTION, ENCODER_KEYS, QUESTION, P_COMPRESS = "encoder_attention", "encoder_keys", "question", "p_compress"
NEEDS = (ENCODER_ATTENTION, ENCODER_KEYS, QUESTION, P_COMPRESS)
"""What a selection part can ask for beside the tokens and their places."""


@dataclass(frozen=True, kw_only=True)
class TileFacts:
    """Sizes of a tile, where a family cuts images into tiles."""

    vision_side: int
    """Vision tokens along a side."""

    visual_side: int
    """Visual tokens along a side, at full length."""

    @property
    def num_tokens(self) -> int:
        """Visual tokens of a tile at full length."""
        return self.visual_side**2


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What parts may know of a checkpoint's model."""

    checkpoint: str
    """As the user named it."""

    family: str

    num_layers: int
    """Of the decoder."""

    num_heads: int
    """Attention heads of a decoder layer."""

    tile: TileFacts | None = None
    """None where images are not cut into tiles."""

    connectors: frozenset[str] = frozenset()
    """Names of the connectors that a tile can go through; none where a family routes nothing."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parts that the checkpoint holds beyond encoder, connector and decoder: their settings by name."""

    trained_in: frozenset[str] = frozenset()
    """Those of `parts` that the other weights are trained with: without them it is another model."""

    offers: frozenset[str] = frozenset()
    """Which of `NEEDS` the family can supply."""

    score_sources: frozenset[str] = frozenset()
    """Which rows of the encoder's attention it can give scores from: `cls` only where there is a class token."""

    num_vision_layers: int = 0
    """Of the encoder."""


class Part(ABC):
    """Something a method does in one place."""

    place: ClassVar[str]
    Config: ClassVar[type]
    needs_donor: ClassVar[bool] = False
    """Whether ViCO's parts come from a second checkpoint (`flash_from=`)."""

    needs_router: bool = True
    """Whether the second checkpoint's routers are among them, with the vision encoder that they read."""

    runs: ClassVar[frozenset[str]] = frozenset()
    """Those of a checkpoint's `trained_in` parts that this part runs; a method that leaves one out is refused."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def resolved(self) -> Self:
        """The part once its arguments that name earlier runs are read; called when a model is loaded.

        Raises:
            ConfigError: a folder that holds no finished run, or one that measured nothing of use.
        """
        return self

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Raises CheckpointError if the checkpoint lacks what this part needs, ConfigError if it is asked too much."""

    def check_donor(self, identity: Callable[[], Mapping[str, str]], checkpoint: str) -> None:  # noqa: B027
        """Raises ConfigError if the part can't do with the second checkpoint; its digest takes reading all of it."""


@dataclass(frozen=True)
class TileLimits:
    """Between which numbers of tiles an image's grid is chosen, thumbnail not counted."""

    min_tiles: int
    max_tiles: int


@dataclass(frozen=True)
class ImageSize:
    """An image that is about to be cut, and how the checkpoint and the caller would have it cut."""

    width: int
    height: int
    """px."""

    tile_size: int
    """px."""

    limits: TileLimits

    num_tiles: Callable[[TileLimits], int]
    """Tiles that the image would become under other limits, thumbnail included."""


class ResolutionPart(Part):
    """Which tiles an image becomes."""

    place = RESOLUTION

    @abstractmethod
    def limits(self, image: ImageSize) -> TileLimits:
        """Between which numbers of tiles the image's grid is to be."""


class Route(NamedTuple):
    """A way of a tile's vision tokens to visual tokens."""

    connector: str
    """One of `ModelFacts.connectors`."""

    then: Callable[[Tensor], Tensor] | None = None
    """Makes fewer tokens [tiles, n', D] of the connector's [tiles, n, D]."""


HIGH, LOW = Route("high"), Route("low")


@dataclass(frozen=True)
class RequestTiles:
    """What is known of one request's tiles when they are routed."""

    key: str
    """Of the document, `task/split/number` under lmms-eval."""

    tile_image: Tensor
    """[tiles], int64: index of the image (or frame) that each tile is cut from."""

    p_compress: Tensor | None
    """[tiles], the part's own scores; None where it has none."""

    media: str | None = None
    """Digest of the tiles."""

    grids: tuple[tuple[int, int, int], ...] = ()
    """Columns, rows and tiles of each image or frame."""

    @property
    def task(self) -> str:
        """Name of the benchmark that the document is from."""
        return self.key.split("/", 1)[0]

    @property
    def num_tiles(self) -> int:
        """Tiles of the request."""
        return len(self.tile_image)


class ConnectorPart(Part):
    """Which connector each tile goes through."""

    place = CONNECTOR

    @property
    def routes(self) -> tuple[Route, ...]:
        """Those that a tile can take. None at all: the model's own connector, whatever it is, for every tile."""
        return (HIGH, LOW)

    def scored_by(self, facts: ModelFacts) -> str | None:
        """Name of the checkpoint's part that scores tiles; None if routes need no scores."""
        return None

    @abstractmethod
    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Which of `routes` each tile of one request takes, [tiles], int64 or, between two, bool."""


class ScoreSource(NamedTuple):
    """Where the encoder's scores come from (`ENCODER_ATTENTION`)."""

    rows: str
    """`cls`: the class token's row of attention; `mean`: the mean over the patches' rows."""

    layer: int
    """Of the encoder; negative ones count from its end."""


@dataclass(frozen=True, kw_only=True)
class VisualTokens:
    """The visual tokens of one request, and what a selection part asked for. In the order of the prompt."""

    key: str

    tokens: Tensor
    """[n, D]: what the connector made."""

    image: Tensor
    """[n], int64: index of the image or frame."""

    tile: Tensor
    """[n], int64: index of the tile within the request; -1 where there are no tiles."""

    grid_yx: Tensor
    """[n, 2], float32: row and column within the image, in units of visual tokens at full length; of a thumbnail, as if
    it lay over the whole grid of tiles."""

    scores: Tensor | None = None
    """[n], float32: attention that the encoder pays to each token's patches, their mean."""

    keys: Tensor | None = None
    """[n, d], float32: the encoder's keys, mean over heads and patches."""

    p_compress: Tensor | None = None
    """[n], float32: the router's score of each token's tile."""

    question_ids: Tensor | None = None
    """[question], int64: ids of the prompt's text, the chat template's included."""

    question_embeddings: Tensor | None = None
    """[question, D]."""


class Selected(NamedTuple):
    """The visual tokens of one request that enter the decoder."""

    keep: Tensor
    """[kept], int64, distinct: the token that each one is, or, merged, stands for. Image after image; the tokens that
    are not merged ascend."""

    merged: Tensor | None = None
    """[merged, D]: vectors of the merged ones, in order."""

    is_merged: Tensor | None = None
    """[kept], bool: which of them are merged."""


class SelectionPart(Part):
    """Which of a request's visual tokens enter the decoder."""

    place = SELECTION
    needs: ClassVar[frozenset[str]] = frozenset()
    """What of `NEEDS` it looks at; the family supplies it, or refuses before weights are read."""

    @property
    def score_source(self) -> ScoreSource:
        """Where scores and keys come from, for a part that needs them."""
        return ScoreSource("cls", -2)

    @abstractmethod
    def select(self, requests: Sequence[VisualTokens]) -> Sequence[Selected | None]:
        """What stays of each request; None for all, as they are. Never asked about a request without visual tokens.

        Several requests come together so that work on the accelerator can be batched; none may depend on another.
        """


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
        weights = self.attention_rows(queries)
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
    """Whether the tokens that go on take positions 0, 1, 2, ... instead of keeping their own."""

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


def need_low_connector(facts: ModelFacts, method: str) -> None:
    """Raises CheckpointError unless the checkpoint has a low connector."""
    if LOW.connector not in facts.connectors:
        raise CheckpointError(
            f"checkpoint {facts.checkpoint!r} has no low connector, and method {method!r} needs one. Load the ViCO "
            "(Flash) checkpoint of the same size, or run `vanilla`."
        )


def need_router(facts: ModelFacts, method: str) -> None:
    """Raises CheckpointError unless the checkpoint has a low connector and a router."""
    need_low_connector(facts, method)
    if "router" not in facts.parts:
        raise CheckpointError(
            f"checkpoint {facts.checkpoint!r} has no router, and method {method!r} needs one. Load the ViCO (Flash) "
            "checkpoint of the same size, or run `all_compress` or `random`."
        )
