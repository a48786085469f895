"""Selection methods that use the vision encoder's attention."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ENCODER_ATTENTION, ScoreSource
from vico_eval.methods.shared.budgets import BudgetedSelection, KeepRatio

CLS, MEAN = SCORE_SOURCES = ("cls", "mean")
DEFAULT_LAYER = -2


@dataclass(frozen=True, kw_only=True)
class EncoderScores(KeepRatio):
    """Token budget and source of attention."""

    score_source: str = CLS
    """cls: the class token's row; mean: the mean over the patches' rows."""

    score_layer: int = DEFAULT_LAYER
    """Layer of the vision encoder; negative ones count from its end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_source not in SCORE_SOURCES:
            raise ConfigError(f"got score_source={self.score_source!r}; expected {' or '.join(SCORE_SOURCES)}.")


class ScoredSelection(BudgetedSelection):
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

    @property
    def remark(self) -> str:
        """Whose attention it is, and of which layer unless it is the last but one."""
        rows = {CLS: "class row", MEAN: "mean of rows"}[self.config.score_source]
        layer = self.config.score_layer
        return rows if layer == DEFAULT_LAYER else f"{rows}, layer {layer}"
