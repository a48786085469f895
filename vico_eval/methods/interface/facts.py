"""What parts may know of a model, and what all parts have in common."""

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
"""What a selection part can ask for beside the tokens and their places."""


def task_of(key: str) -> str:
    """Name of the benchmark that a document is from, by its key: `task/split/number` under lmms-eval."""
    return key.split("/", 1)[0]


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

    pixels: PixelFacts | None = None
    """None where images are not resized to whole visual tokens."""

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

    default_scores: ScoreSource = DEFAULT_SCORES
    """Where scores come from unless the arguments say otherwise."""

    windowed_layers: frozenset[int] = frozenset()
    """Layers of the encoder in which a patch attends to a part of its image; their scores compare no two windows."""

    num_vision_layers: int = 0
    """Of the encoder."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Numbers that a model has of a token, from which operations follow."""

    model: int
    """D, of the decoder."""

    queries: int
    """A, of a decoder layer's queries, all heads together."""

    keys: int
    """K, of its keys."""

    encoder_key: int
    """Of the vision encoder's keys, mean over heads."""

    connector_input: int
    """What the connector takes in for a visual token of a tile at full length."""

    connector_operations: int
    """Of the connector, on such a token."""


@runtime_checkable
class NamesEarlierRun(Protocol):
    """A `Config` with arguments that name earlier runs."""

    def resolved(self) -> Self:
        """With what those runs measured."""


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
        return type(self)(self.config.resolved()) if isinstance(self.config, NamesEarlierRun) else self

    def suited(self, facts: ModelFacts) -> Self:
        """The part with what the model decides where the arguments leave it open."""
        return self

    @property
    def remark(self) -> str | None:
        """What a row's title has to say of the arguments, in a few words; None where the method's name says it all."""
        return None

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...] | None:
        """The matrix products by which it chooses tokens or merges them, in each place where it does.

        The encoder's scores are not among them: whoever supplies what a selection part `needs` counts it. Empty where
        it computes nothing; None where it doesn't say.
        """
        return None

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Raises CheckpointError if the checkpoint lacks what this part needs, ConfigError if it is asked too much."""

    def check_donor(self, identity: Callable[[], Mapping[str, str]], checkpoint: str) -> None:  # noqa: B027
        """Raises ConfigError if the part can't do with the second checkpoint; its digest takes reading all of it."""
