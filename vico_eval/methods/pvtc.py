"""PVTC: a checkpoint's own projector, for which each visual token reads its window of vision tokens by two queries.

Place:   connector.
Needs:   a checkpoint trained with PVTC.
Source:  InternVL-X (arXiv 2503.21307), point-to-region visual token compression. The projector is a part of the
         checkpoint (`families/internvl/pvtc.py`) and compresses nothing further; this name says that it must
         be there. `vanilla` runs whatever projector a checkpoint has, and `pool` averages that one's tokens.
"""

from __future__ import annotations

from vico_eval.errors import CheckpointError
from vico_eval.methods.interface import ModelFacts
from vico_eval.methods.vanilla import Vanilla


class Pvtc(Vanilla):
    """Keeps every token that PVTC makes."""

    runs = frozenset({"pvtc"})

    def check(self, facts: ModelFacts) -> None:
        """Needs PVTC."""
        if "pvtc" not in facts.parts:
            raise CheckpointError(
                f"checkpoint {facts.checkpoint!r} has no PVTC, and method 'pvtc' needs it: its connector is another "
                "one (pixel shuffle and MLP in InternVL). Load an InternVL-X checkpoint, or run `vanilla`."
            )
