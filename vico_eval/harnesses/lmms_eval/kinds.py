"""Kinds of checkpoints as the names of lmms-eval's models have them: `<method>_<kind>`, `compressed_<kind>`.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.methods.registry import method_names

COMBINED = "compressed"
"""Stands in a model's name for a method, and takes `method=`."""

_ON_TILES = frozenset({"downsample", "rvtc_area", "rvtc_edge", "rvtc_ratio", "single_tile"})
_ON_CONNECTORS = frozenset({"all_compress", "image_vir", "lvtc", "pool", "pvtc", "random", "vanilla_vir", "vico"})


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of checkpoint."""

    name: str
    """Behind the method in a model's name."""

    title: str
    """For people."""

    model_types: frozenset[str]
    """As its checkpoints' `config.json` has them."""

    lacks: frozenset[str]
    """Methods that need what no checkpoint of this kind has; they have no model of their own."""

    @property
    def combined(self) -> str:
        """The model that takes `method=`."""
        return f"{COMBINED}_{self.name}"

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that have a model of their own, sorted."""
        return tuple(name for name in method_names() if name not in self.lacks)

    def model_of(self, method: str) -> str:
        """Name of the model of a method."""
        return f"{method}_{self.name}"


INTERNVL = Kind(
    name="internvl",
    title="InternVL",
    model_types=frozenset({"vico_internvl", "internvl_chat", "internvl"}),
    lacks=frozenset({"max_pixels"}),
)
QWEN2_5_VL = Kind(
    name="qwen2_5_vl",
    title="Qwen2.5-VL",
    model_types=frozenset({"qwen2_5_vl"}),
    lacks=_ON_TILES | _ON_CONNECTORS,
)
QWEN3_VL = Kind(
    name="qwen3_vl",
    title="Qwen3-VL",
    model_types=frozenset({"qwen3_vl", "qwen3_vl_moe"}),
    lacks=_ON_TILES | _ON_CONNECTORS,
)

KINDS = (INTERNVL, QWEN2_5_VL, QWEN3_VL)


def kind_of(model_type: object) -> Kind | None:
    """The kind that a checkpoint's `model_type` means; None for one of no kind."""
    return next((kind for kind in KINDS if model_type in kind.model_types), None)


def split_model(model: str) -> tuple[str, Kind] | None:
    """The method, or `COMBINED`, and the kind that a model's name has; None where it is no such name.

    `internvl_x`, which takes `variant=`, is none.
    """
    for kind in KINDS:
        if model.endswith(f"_{kind.name}"):
            return model.removesuffix(f"_{kind.name}"), kind
    return None
