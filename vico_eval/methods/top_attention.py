"""Top attention: of each tile, the visual tokens that the vision encoder attends to most enter the decoder.

Place:   selection.
Source:  none of its own: the scores that VisionZip, VisPruner and HoloV begin with, and nothing else. The control that
         shows what their further steps are worth. After the softmax, mean over heads, pooled over the 2 x 2 patches of
         a visual token.
Differs: `score_source=cls` is the papers' row for an encoder with a class token. InternVL drops that token behind the
         encoder's last layer, so its row is taken from the last but one (`score_layer=-2`), where it still feeds
         something; `score_source=mean` takes the mean over the patches' rows instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ENCODER_ATTENTION, ScoreSource, Selected, SelectionPart, VisualTokens
from vico_eval.methods.shared.budgets import KeepRatio
from vico_eval.methods.shared.groups import highest_of_each_group

SCORE_SOURCES = ("cls", "mean")


@dataclass(frozen=True, kw_only=True)
class TopAttentionConfig(KeepRatio):
    """How many tokens, and whose attention."""

    score_source: str = "cls"
    """cls: the class token's row; mean: the mean over the patches' rows."""

    score_layer: int = -2
    """Layer of the vision encoder; negative ones count from its end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_source not in SCORE_SOURCES:
            raise ConfigError(
                f"top_attention got score_source={self.score_source!r}; expected {' or '.join(SCORE_SOURCES)}."
            )


class TopAttention(SelectionPart):
    """Keeps the tokens of the highest scores."""

    Config = TopAttentionConfig
    config: TopAttentionConfig
    needs = frozenset({ENCODER_ATTENTION})

    @property
    def score_source(self) -> ScoreSource:
        """As the arguments say."""
        return ScoreSource(self.config.score_source, self.config.score_layer)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The highest scores of every tile."""
        return [self._highest(visual) for visual in requests]

    def _highest(self, visual: VisualTokens) -> Selected | None:
        assert visual.scores is not None, "asked for in `needs`"
        return highest_of_each_group(visual, visual.scores, self.config.keep_ratio)
