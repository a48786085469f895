"""Selection methods that use the vision encoder's attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import DEFAULT_SCORES, ENCODER_ATTENTION, ModelFacts, ScoreSource
from vico_eval.methods.shared.budgets import BudgetedSelection, KeepRatio

if TYPE_CHECKING:
    from typing_extensions import Self

CLS, MEAN = SCORE_SOURCES = ("cls", "mean")


@dataclass(frozen=True, kw_only=True)
class EncoderScores(KeepRatio):
    """Token budget and source of attention."""

    score_source: str | None = None
    """cls: the class token's row; mean: the mean over the patches' rows. By default cls where the encoder has a class
    token."""

    score_layer: int | None = None
    """Layer of the vision encoder; negative ones count from its end. By default the last but one, on Qwen2.5-VL the
    last that attends to whole images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_source not in (None, *SCORE_SOURCES):
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
        return self._scores(DEFAULT_SCORES)

    def suited(self, facts: ModelFacts) -> Self:
        """With the family's source of scores where the arguments name none."""
        rows, layer = self._scores(facts.default_scores)
        return type(self)(replace(self.config, score_source=rows, score_layer=layer))

    def _scores(self, default: ScoreSource) -> ScoreSource:
        rows, layer = self.config.score_source, self.config.score_layer
        return ScoreSource(default.rows if rows is None else rows, default.layer if layer is None else layer)

    @property
    def remark(self) -> str:
        """Whose attention it is, and of which layer unless it is the last but one."""
        source, layer = self.score_source
        rows = {CLS: "class row", MEAN: "mean of rows"}[source]
        return rows if layer == DEFAULT_SCORES.layer else f"{rows}, layer {layer}"
