"""PVTC: the checkpoint's own projector, in which two queries per visual token read its window of vision tokens.

Place:   connector.
Needs:   a checkpoint trained with PVTC.
Source:  InternVL-X (arXiv 2503.21307), point-to-region visual token compression. The projector is part of the
         checkpoint (`families/internvl/pvtc.py`). This method compresses no further; it only requires a checkpoint with
         PVTC. `vanilla` runs whatever projector a checkpoint has, and `pool` averages the tokens of that projector.
"""

from __future__ import annotations

from vico_eval.errors import CheckpointError
from vico_eval.methods.interface import ModelFacts
from vico_eval.methods.vanilla import Vanilla


class Pvtc(Vanilla):
    """Keeps every token that PVTC makes."""

    runs = frozenset({"pvtc"})

    def check(self, facts: ModelFacts) -> None:
        """Require PVTC."""
        if "pvtc" not in facts.parts:
            raise CheckpointError(
                f"checkpoint {facts.checkpoint!r} has no PVTC, and method 'pvtc' needs it; the checkpoint has another "
                "connector (pixel shuffle and MLP in InternVL). Load an InternVL-X checkpoint, or run `vanilla`."
            )
