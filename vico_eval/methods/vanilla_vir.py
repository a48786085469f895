"""Vanilla + ViR: the base model, never trained for it, with the low connector and router of its ViCO model.

Place:   connector.
Source:  ViCO (arXiv 2510.12793), Table 3: what routing costs a model without consistency training.
"""

from __future__ import annotations

from vico_eval.methods.registry import register
from vico_eval.methods.vico import ViCO


@register("vanilla_vir")
class VanillaViR(ViCO):
    """ViCO's routing on base weights; `flash_from=` names the ViCO checkpoint that gives connector and router."""

    needs_donor = True
