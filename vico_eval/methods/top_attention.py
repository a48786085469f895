"""Top attention: of each tile, the visual tokens that the vision encoder attends to most enter the decoder.

Place:   selection.
Needs:   attention of the vision encoder.
Source:  none of its own: the scores that VisionZip, VisPruner and HoloV begin with, and nothing else. The control that
         shows what their further steps are worth. After the softmax, mean over heads, pooled over the 2 x 2 patches of
         a visual token.
Differs: `score_source=cls` is the papers' row for an encoder with a class token. InternVL drops that token behind the
         encoder's last layer, so its row is taken from the last but one (`score_layer=-2`), where it still feeds
         something; `score_source=mean` takes the mean over the patches' rows instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vico_eval.methods.interface import ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.encoder_scores import EncoderScores, ScoredSelection
from vico_eval.methods.shared.groups import Groups, highest_scores, select_in_groups
from vico_eval.runs.costs import ChoiceCosts


class TopAttention(ScoredSelection):
    """Keeps the tokens of the highest scores."""

    Config = EncoderScores
    config: EncoderScores

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """None beside the scores."""
        return ()

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The highest scores of every tile."""
        return select_in_groups(requests, self.config, _choose)


def _choose(groups: Groups) -> Tensor:
    return highest_scores(groups.scores, groups.num_keep)
