"""Top attention: within each tile, keep the visual tokens to which the vision encoder attends most.

Place:   selection.
Needs:   attention of the vision encoder.
Source:  none of its own. It uses the scores with which VisionZip, VisPruner and HoloV begin, and nothing else: a
         control that measures the value of their further steps. Attention is taken after the softmax, averaged over
         heads, and pooled over the 2 x 2 patches of a visual token.
Differs: `score_source=cls` is the class token's row, as in the papers. InternVL drops this token after the encoder's
         last layer, so the row comes from the last but one (`score_layer=-2`), where the token still feeds the last
         layer. `score_source=mean` is the mean over the patches' rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vico_eval.methods.interface import ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.encoder_scores import EncoderScores, ScoredSelection
from vico_eval.methods.shared.groups import Groups, highest_scores, select_in_groups
from vico_eval.runs.costs import ChoiceCosts


class TopAttention(ScoredSelection):
    """Keeps the highest-scoring tokens."""

    Config = EncoderScores
    config: EncoderScores

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None beyond the scores."""
        return ()

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The highest scores of every tile."""
        return select_in_groups(requests, self.config, _choose)


def _choose(groups: Groups) -> Tensor:
    return highest_scores(groups.scores, groups.num_keep)
