"""The places where a method can act, and what it is asked there.

A method is one part, or several in different places joined by `+`. A part holds its hyper-parameters (a frozen
dataclass, its `Config`) and no state of any request, so that answers can't depend on what else is in a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vico_eval.errors import CheckpointError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from vico_eval.families.decoder.token_selection import LayerState, NextTokens, RequestPrompt, TokenSelector
    from vico_eval.families.internvl.config import VicoInternVLConfig
    from vico_eval.families.internvl.modeling import VicoInternVL
    from vico_eval.families.internvl.tiling import TiledImage


@dataclass(frozen=True)
class TilingSettings:
    """How the checkpoint and the caller would have an image cut."""

    tile_size: int
    """px."""

    min_tiles: int
    max_tiles: int
    """Thumbnail not counted."""

    use_thumbnail: bool


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

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:  # noqa: B027
        """Raises CheckpointError if the checkpoint lacks what this part needs."""

    def check_donor(self, identity: Callable[[], Mapping[str, str]], checkpoint: str) -> None:  # noqa: B027
        """Raises ConfigError if the part can't do with the second checkpoint; its digest takes reading all of it."""


class TilingPart(Part):
    """Which tiles an image becomes."""

    place = "tiling"

    @abstractmethod
    def tile(self, image: Image.Image, settings: TilingSettings) -> TiledImage:
        """An RGB image's tiles and the grid that they are of."""


class ConnectorPart(Part):
    """Which connector each tile goes through."""

    place = "connector"
    compresses: ClassVar[bool] = True
    """Whether tiles may take fewer than their full number of visual tokens."""

    shorten: Callable[[Tensor], Tensor] | None = None
    """Makes a compressed tile's tokens [tiles, num_low, D] of its full ones [tiles, num_high, D]; a method of that name
    stands in for the low connector, so base weights will do."""

    def score(self, model: VicoInternVL, vit_tokens: Tensor) -> Tensor | None:
        """Scores [tiles] of the tiles of many requests at once, [tiles, 1 + h*w, C]; None if it needs none.

        The tokens are those of the encoder that the model's routers read.
        """
        return None

    @abstractmethod
    def route(self, tiles: RequestTiles, model_config: VicoInternVLConfig) -> Tensor:
        """Which tiles of one request are compressed, [tiles], bool."""


class DecoderPart(Part):
    """Which tokens a decoder layer works on.

    It is asked request by request, in prefill only, and never about a request without visual tokens. What it decides
    holds for the whole answer.
    """

    place = "decoder"
    renumbers: bool = False
    """Whether the tokens that go on take positions 0, 1, 2, ... instead of keeping their own."""

    needs_vit_tokens: ClassVar[bool] = False
    """Whether `project` is to see the vision encoder's tokens."""

    needs_whole_tiles: ClassVar[bool] = False
    """Whether every tile has to come with its full number of visual tokens: no connector part may compress then."""

    def bind(self, model: VicoInternVL) -> TokenSelector:
        """The part for one model: itself, unless it computes with modules of the model."""
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

    def num_joining(self, num_tiles: int, model_config: VicoInternVLConfig) -> int:
        """Tokens by which a request of so many tiles can grow between the layers."""
        return 0


def need_low_connector(model_config: VicoInternVLConfig, checkpoint: str, method: str) -> None:
    """Raises CheckpointError unless the checkpoint has a low connector."""
    if not model_config.has_low_connector:
        raise CheckpointError(
            f"checkpoint {checkpoint!r} has no low connector, and method {method!r} needs one. Load the ViCO (Flash) "
            "checkpoint of the same size, or run `vanilla`."
        )


def need_router(model_config: VicoInternVLConfig, checkpoint: str, method: str) -> None:
    """Raises CheckpointError unless the checkpoint has a low connector and a router."""
    need_low_connector(model_config, checkpoint, method)
    if not model_config.has_router:
        raise CheckpointError(
            f"checkpoint {checkpoint!r} has no router, and method {method!r} needs one. Load the ViCO (Flash) "
            "checkpoint of the same size, or run `all_compress` or `random`."
        )
