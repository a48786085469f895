"""Selection methods that look at the vision encoder's attention."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ENCODER_ATTENTION, ScoreSource, SelectionPart
from vico_eval.methods.shared.budgets import KeepRatio

SCORE_SOURCES = ("cls", "mean")


@dataclass(frozen=True, kw_only=True)
class EncoderScores(KeepRatio):
    """How many tokens stay, and whose attention says which."""

    score_source: str = "cls"
    """cls: the class token's row; mean: the mean over the patches' rows."""

    score_layer: int = -2
    """Layer of the vision encoder; negative ones count from its end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_source not in SCORE_SOURCES:
            raise ConfigError(f"got score_source={self.score_source!r}; expected {' or '.join(SCORE_SOURCES)}.")


class ScoredSelection(SelectionPart):
    """A part whose `Config` is an `EncoderScores`."""

    config: EncoderScores

    @property
    def needs(self) -> frozenset[str]:
        """The encoder's attention."""
        return frozenset({ENCODER_ATTENTION})

    @property
    def score_source(self) -> ScoreSource:
        """As the arguments say."""
        return ScoreSource(self.config.score_source, self.config.score_layer)
