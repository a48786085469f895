"""Parts that act before the decoder: on an image's tiles, on a tile's connector, on the visual tokens that enter.

Shapes: n = visual tokens of one request; tiles = those of one request; D = decoder width; d = width of an encoder's
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
    """Between which numbers of tiles an image's grid is chosen, thumbnail not counted."""

    min_tiles: int
    max_tiles: int

    grid: tuple[int, int] | None = None
    """Columns and rows of every image, whatever its shape; None where the shape chooses."""

    @classmethod
    def of_grid(cls, columns: int, rows: int) -> TileLimits:
        """Those that leave nothing to choose."""
        return cls(columns * rows, columns * rows, (columns, rows))


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

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None: it chooses by an image's size."""
        return ()

    @abstractmethod
    def limits(self, image: ImageSize) -> TileLimits:
        """Between which numbers of tiles the image's grid is to be."""


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
        return task_of(self.key)

    @property
    def num_tiles(self) -> int:
        """Tiles of the request."""
        return len(self.tile_image)


class ConnectorPart(Part):
    """Which connector each tile goes through."""

    place = CONNECTOR

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None: a router's score of a tile is counted with the tile."""
        return ()

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
    """[question], int64: ids of the words that the user said; neither system message nor template."""

    question_embeddings: Tensor | None = None
    """[question, D], of the decoder."""

    connect_mixed: Callable[[Tensor, Tensor], Tensor] | None = None
    """What the connector makes of weighted sums of what it takes in for tokens.

    Args: indices [groups, members], int64, of tokens that one connector makes; on the CPU, or the host has to wait for
    them. Weights [groups, mixed, members].
    Returns: [groups, mixed, D].
    """


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

    @property
    def needs(self) -> frozenset[str]:
        """What of `NEEDS` it looks at; the family supplies it, or refuses before weights are read."""
        return frozenset()

    @property
    def score_source(self) -> ScoreSource:
        """Where scores and keys come from, for a part that needs them."""
        return DEFAULT_SCORES

    @abstractmethod
    def select(self, requests: Sequence[VisualTokens]) -> Sequence[Selected | None]:
        """What stays of each request; None for all, as they are. Never asked about a request without visual tokens.

        Several requests come together so that work on the accelerator can be batched; none may depend on another.
        Tensors are on its device, where the host waits for each value that it reads: read all requests' at once
        (`methods.shared.copies`). What is chosen may be there or on the CPU.
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
