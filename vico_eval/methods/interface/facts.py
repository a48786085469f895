"""What parts may know about a model, and what all parts have in common."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from typing_extensions import Self

    from vico_eval.runs.costs import ChoiceCosts

RESOLUTION, CONNECTOR, SELECTION, DECODER = "resolution", "connector", "selection", "decoder"
PLACES = (RESOLUTION, CONNECTOR, SELECTION, DECODER)
"""In the order in which parts act."""

ENCODER_ATTENTION, ENCODER_KEYS, QUESTION, P_COMPRESS = "encoder_attention", "encoder_keys", "question", "p_compress"
CONNECTOR_INPUTS = "connector_inputs"
NEEDS = (ENCODER_ATTENTION, ENCODER_KEYS, QUESTION, P_COMPRESS, CONNECTOR_INPUTS)
"""What a selection part can request in addition to the tokens and their places."""


def task_of(key: str) -> str:
    """Name of a document's benchmark, from its key: `task/split/number` under lmms-eval."""
    return key.split("/", 1)[0]


@dataclass(frozen=True, kw_only=True)
class TileFacts:
    """Sizes of a tile, in families that cut images into tiles."""

    vision_side: int
    """Vision tokens along a side."""

    visual_side: int
    """Visual tokens along a side, at full length."""

    @property
    def num_tokens(self) -> int:
        """Visual tokens of a tile at full length."""
        return self.visual_side**2


@dataclass(frozen=True, kw_only=True)
class PixelFacts:
    """Sizes of an image, where a family resizes each to whole visual tokens."""

    token_side: int
    """px along a side of a visual token."""

    max_tokens: int
    """Visual tokens of the largest image that the checkpoint takes by itself."""


class ScoreSource(NamedTuple):
    """Where the encoder's scores come from (`ENCODER_ATTENTION`)."""

    rows: str
    """`cls`: the class token's row of attention; `mean`: the mean over the patches' rows."""

    layer: int
    """Of the encoder; negative ones count from its end."""


DEFAULT_SCORES = ScoreSource("cls", -2)
"""The papers', where neither the arguments nor the family say otherwise."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What parts may know about a checkpoint's model."""

    checkpoint: str
    """As the user named it."""

    family: str

    num_layers: int
    """Number of decoder layers."""

    num_heads: int
    """Attention heads of a decoder layer."""

    tile: TileFacts | None = None
    """None if images are not cut into tiles."""

    pixels: PixelFacts | None = None
    """None where images are not resized to whole visual tokens."""

    connectors: frozenset[str] = frozenset()
    """Names of the connectors that a tile can go through; empty if the family routes nothing."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parts of the checkpoint beyond encoder, connector and decoder, with their settings by name."""

    trained_in: frozenset[str] = frozenset()
    """The subset of `parts` that the other weights were trained with; without them it is a different model."""

    offers: frozenset[str] = frozenset()
    """The subset of `NEEDS` that the family can supply."""

    score_sources: frozenset[str] = frozenset()
    """Rows of the encoder's attention that can supply scores; `cls` only if there is a class token."""

    default_scores: ScoreSource = DEFAULT_SCORES
    """Where scores come from unless the arguments say otherwise."""

    windowed_layers: frozenset[int] = frozenset()
    """Layers of the encoder in which a patch attends to a part of its image; their scores compare no two windows."""

    num_vision_layers: int = 0
    """Number of vision encoder layers."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Sizes of a model per token, which determine the number of operations."""

    model: int
    """D, width of the decoder."""

    queries: int
    """A, width of a decoder layer's queries, all heads together."""

    keys: int
    """K, width of its keys."""

    encoder_key: int
    """Width of the vision encoder's keys, averaged over heads."""

    connector_input: int
    """Width of the connector's input for one visual token of a tile at full length."""

    connector_operations: int
    """Operations of the connector on one such token."""


@runtime_checkable
class NamesEarlierRun(Protocol):
    """A `Config` whose arguments can name earlier runs."""

    def resolved(self) -> Self:
        """The configuration with the values that those runs measured."""


class Part(ABC):
    """What a method does in one place."""

    place: ClassVar[str]
    Config: ClassVar[type]
    needs_donor: ClassVar[bool] = False
    """Whether a second checkpoint (`flash_from=`) supplies ViCO's parts."""

    needs_router: bool = True
    """Whether the second checkpoint also supplies its routers, with the vision encoder that they read."""

    runs: ClassVar[frozenset[str]] = frozenset()
    """The subset of a checkpoint's `trained_in` parts that this part runs; a method that omits one is refused."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def resolved(self) -> Self:
        """The part once its arguments that name earlier runs are resolved; called when a model is loaded.

        Raises:
            ConfigError: a folder holds no finished run, or its run measured nothing of use.
        """
        return type(self)(self.config.resolved()) if isinstance(self.config, NamesEarlierRun) else self

    def suited(self, facts: ModelFacts) -> Self:
        """The part with what the model decides where the arguments leave it open."""
        return self

    @property
    def remark(self) -> str | None:
        """Note on the arguments for a row's title, in a few words; None if the method's name is enough."""
        return None

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...] | None:
        """Matrix products by which the part chooses or merges tokens, at each place where it does.

        The encoder's scores are not included: whoever supplies what a selection part `needs` counts them. Empty if the
        part computes nothing; None if its costs are unknown.
        """
        return None

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Raises CheckpointError if the checkpoint lacks what this part needs, ConfigError if arguments don't fit."""

    def check_donor(self, identity: Callable[[], Mapping[str, str]], checkpoint: str) -> None:  # noqa: B027
        """Raises ConfigError if the part can't use the second checkpoint; `identity` reads all of it for its digest."""
