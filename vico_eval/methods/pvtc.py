"""PVTC: a checkpoint's own projector, for which each visual token reads its window of vision tokens by two queries.

Place:   connector.
Source:  InternVL-X (arXiv 2503.21307), point-to-region visual token compression. The projector is a part of the
         checkpoint (`vico_eval/families/internvl/pvtc.py`) and compresses nothing further; this name says that it must
         be there. `vanilla` runs whatever projector a checkpoint has, and `pool` averages that one's tokens.
"""

from __future__ import annotations

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.registry import register
from vico_eval.methods.vanilla import Vanilla


@register("pvtc")
class Pvtc(Vanilla):
    """Keeps every token that PVTC makes."""

    runs = frozenset({"pvtc"})

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Needs PVTC."""
        if model_config.connector != "pvtc":
            raise CheckpointError(
                f"checkpoint {checkpoint!r} has no PVTC, and method 'pvtc' needs it: its connector is "
                f"{model_config.connector!r} (pixel shuffle and MLP). Load an InternVL-X checkpoint, or run `vanilla`."
            )
