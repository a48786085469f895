"""Parts that act before the decoder: on the tiles of images, the connector of tiles and the visual tokens.

Shapes: n = visual tokens of one request; tiles = tiles of one request; D = decoder width; d = width of an encoder's
key.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vico_eval.errors import CheckpointError
from vico_eval.methods.interface.facts import (
    CONNECTOR,
    DEFAULT_SCORES,
    RESOLUTION,
    SELECTION,
    ModelFacts,
    Part,
    ScoreSource,
    Widths,
    task_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from vico_eval.runs.costs import ChoiceCosts


@dataclass(frozen=True)
class TileLimits:
    """Limits on the number of tiles in an image's grid, thumbnail not counted."""

    min_tiles: int
    max_tiles: int

    grid: tuple[int, int] | None = None
    """Columns and rows for every image, whatever its shape; None if the shape decides."""

    @classmethod
    def of_grid(cls, columns: int, rows: int) -> TileLimits:
        """Limits that allow this grid only."""
        return cls(columns * rows, columns * rows, (columns, rows))


@dataclass(frozen=True)
class ImageSize:
    """An image about to be cut into tiles, with the limits of the checkpoint and the caller."""

    width: int
    height: int
    """px."""

    tile_size: int
    """px."""

    limits: TileLimits

    num_tiles: Callable[[TileLimits], int]
    """Number of tiles that the image would become under other limits, thumbnail included."""


class ResolutionPart(Part):
    """Decides which tiles an image becomes."""

    place = RESOLUTION

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None: the choice depends on an image's size alone."""
        return ()

    @abstractmethod
    def limits(self, image: ImageSize) -> TileLimits:
        """Limits on the number of tiles in the image's grid."""


@dataclass(frozen=True)
class ImagePixels:
    """An image that is about to be resized to whole visual tokens."""

    width: int
    height: int
    """px."""

    token_side: int
    """px along a side of a visual token."""

    max_pixels: int
    """That it may have by the checkpoint and the caller."""

    num_tokens: Callable[[int], int]
    """Visual tokens that it would take if it might have so many pixels."""


class PixelPart(Part):
    """How many pixels an image may have."""

    place = RESOLUTION

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None: it chooses by an image's size."""
        return ()

    @abstractmethod
    def max_pixels(self, image: ImagePixels) -> int:
        """The most pixels that the image may have; at least those of one visual token."""


class Route(NamedTuple):
    """A way from a tile's vision tokens to its visual tokens."""

    connector: str
    """One of `ModelFacts.connectors`."""

    then: Callable[[Tensor], Tensor] | None = None
    """Reduces the connector's tokens [tiles, n, D] to fewer, [tiles, n', D]."""


HIGH, LOW = Route("high"), Route("low")


@dataclass(frozen=True)
class RequestTiles:
    """The tiles of one request at the time they are routed."""

    key: str
    """Key of the document, `task/split/number` under lmms-eval."""

    tile_image: Tensor
    """[tiles], int64: index of the image (or frame) that each tile is cut from."""

    p_compress: Tensor | None
    """[tiles], the part's own scores; None if it has none."""

    media: str | None = None
    """Digest of the tiles."""

    grids: tuple[tuple[int, int, int], ...] = ()
    """Columns, rows and tiles of each image or frame."""

    @property
    def task(self) -> str:
        """Name of the document's benchmark."""
        return task_of(self.key)

    @property
    def num_tiles(self) -> int:
        """Number of tiles in the request."""
        return len(self.tile_image)


class ConnectorPart(Part):
    """Decides which connector each tile goes through."""

    place = CONNECTOR

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None: a router's score is counted with its tile."""
        return ()

    @property
    def routes(self) -> tuple[Route, ...]:
        """Routes that a tile can take. Empty: every tile goes through the model's own connector, whatever it is."""
        return (HIGH, LOW)

    def scored_by(self, facts: ModelFacts) -> str | None:
        """Name of the checkpoint's part that scores tiles; None if routing needs no scores."""
        return None

    @abstractmethod
    def route(self, tiles: RequestTiles, facts: ModelFacts) -> Tensor:
        """Route of each tile of one request, an index into `routes`: [tiles], int64 or, between two, bool."""


@dataclass(frozen=True, kw_only=True)
class VisualTokens:
    """The visual tokens of one request, in the order of the prompt, with what the selection part asked for."""

    key: str

    tokens: Tensor
    """[n, D]: the connector's output."""

    image: Tensor
    """[n], int64: index of the image or frame."""

    tile: Tensor
    """[n], int64: index of the tile within the request; -1 if there are no tiles."""

    grid_yx: Tensor
    """[n, 2], float32: row and column within the image, in units of visual tokens at full length. A thumbnail's tokens
    are placed as if it covered the whole grid of tiles."""

    scores: Tensor | None = None
    """[n], float32: attention that the encoder pays to each token's patches, averaged over them."""

    keys: Tensor | None = None
    """[n, d], float32: the encoder's keys, averaged over heads and patches."""

    p_compress: Tensor | None = None
    """[n], float32: the router's score of each token's tile."""

    question_ids: Tensor | None = None
    """[question], int64: ids of the user's words, without system message and template."""

    question_embeddings: Tensor | None = None
    """[question, D]: the decoder's embeddings of these ids."""

    connect_mixed: Callable[[Tensor, Tensor], Tensor] | None = None
    """Connector output for weighted sums of the connector inputs of several tokens.

    Args: indices [groups, members], int64, of tokens made by the same connector; on the CPU, because the host would
    have to wait for them otherwise. Weights [groups, mixed, members].
    Returns: [groups, mixed, D]."""


class Selected(NamedTuple):
    """The visual tokens of one request that enter the decoder."""

    keep: Tensor
    """[kept], int64, distinct: the token that each kept one is or, if merged, stands for. Image after image; the tokens
    that are not merged ascend."""

    merged: Tensor | None = None
    """[merged, D]: vectors of the merged tokens, in order."""

    is_merged: Tensor | None = None
    """[kept], bool: which of the kept tokens are merged."""


class SelectionPart(Part):
    """Selects the visual tokens of a request that enter the decoder."""

    place = SELECTION

    @property
    def needs(self) -> frozenset[str]:
        """The subset of `NEEDS` that the part uses; the family supplies it, or refuses before weights are read."""
        return frozenset()

    @property
    def score_source(self) -> ScoreSource:
        """Where scores and keys come from, for a part that needs them."""
        return DEFAULT_SCORES

    @abstractmethod
    def select(self, requests: Sequence[VisualTokens]) -> Sequence[Selected | None]:
        """The tokens of each request that stay; None if all stay unchanged.

        Requests without visual tokens are never passed in. Several requests come together so that work on the
        accelerator can be batched; no result may depend on another request. Tensors are on the accelerator, where the
        host waits for each value it reads, so read those of all requests at once (`methods.shared.copies`). The result
        may be on the accelerator or on the CPU.
        """


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
