"""Kinds of checkpoints as the names of lmms-eval's models have them: `<method>_<kind>`, `compressed_<kind>`.

Imports neither torch nor transformers before a checkpoint is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vico_eval.cards import KindName
from vico_eval.engine.requests import QWEN3_THINKING_GENERATION, THINKING_GENERATION
from vico_eval.errors import CheckpointError
from vico_eval.methods.registry import method_names

COMBINED = "compressed"
"""Stands in a model's name for a method, and takes `method=`."""

_ON_TILES = frozenset({"downsample", "rvtc_area", "rvtc_edge", "rvtc_ratio", "single_tile"})
_ON_CONNECTORS = frozenset({"all_compress", "image_vir", "lvtc", "pool", "pvtc", "random", "vanilla_vir", "vico"})


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of checkpoint."""

    name: KindName
    """Behind the method in a model's name."""

    title: str
    """For people."""

    model_types: frozenset[str]
    """As its checkpoints' `config.json` has them."""

    at_marks: bool
    """Whether lmms-eval's own adapter puts an image where the words have a mark `<image>`. Otherwise it stands where
    the task has put it."""

    thinking: Mapping[str, Any]
    """How an answer is generated that has thoughts before it, where a task doesn't say."""

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
    at_marks=True,
    thinking=THINKING_GENERATION,
    lacks=frozenset({"max_pixels"}),
)
QWEN2_5_VL = Kind(
    name="qwen2_5_vl",
    title="Qwen2.5-VL",
    model_types=frozenset({"qwen2_5_vl"}),
    at_marks=False,
    thinking=QWEN3_THINKING_GENERATION,
    lacks=_ON_TILES | _ON_CONNECTORS,
)
QWEN3_VL = Kind(
    name="qwen3_vl",
    title="Qwen3-VL",
    model_types=frozenset({"qwen3_vl", "qwen3_vl_moe"}),
    at_marks=False,
    thinking=QWEN3_THINKING_GENERATION,
    lacks=_ON_TILES | _ON_CONNECTORS,
)

KINDS = (INTERNVL, QWEN2_5_VL, QWEN3_VL)


def kind_of(model_type: object) -> Kind | None:
    """The kind that a checkpoint's `model_type` means; None for one of no kind."""
    return next((kind for kind in KINDS if model_type in kind.model_types), None)


def kind_of_checkpoint(pretrained: str) -> Kind | None:
    """The kind of a checkpoint by its `config.json`, which is downloaded for a hub id; None where that can't be had."""
    from vico_eval.families.checkpoint import config_values  # loads torch and transformers

    try:
        return kind_of(config_values(pretrained).get("model_type"))
    except CheckpointError:
        return None


def check_kind(kind: Kind, method: str | None, pretrained: str) -> None:
    """See that a checkpoint is of the kind that a model is named after.

    Args:
        kind: of the model.
        method: that the model stands for; None for the one that takes `method=`.
        pretrained: the checkpoint. One that is not there, or of no kind, is left to what loads it.

    Raises:
        CheckpointError: it is of another kind; names the model to take.
    """
    found = kind_of_checkpoint(pretrained)
    if found in (None, kind):
        return
    own = method or COMBINED
    raise CheckpointError(
        f"--model {kind.model_of(own)} is for {kind.title}, and checkpoint {pretrained!r} is {found.title}. Take "
        f"--model {found.combined if own in found.lacks else found.model_of(own)}."
    )


def split_model(model: str) -> tuple[str, Kind] | None:
    """The method, or `COMBINED`, and the kind that a model's name has; None where it is no such name.

    `internvl_x`, which takes `variant=`, is none.
    """
    for kind in KINDS:
        if model.endswith(f"_{kind.name}"):
            return model.removesuffix(f"_{kind.name}"), kind
    return None
