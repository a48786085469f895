"""Kinds of checkpoints, as used in the names of our lmms-eval models: `<method>_<kind>`, `compressed_<kind>`.

Imports torch and transformers only when a checkpoint is read.
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
"""Replaces the method in the name of the model that takes `method=`."""

_ON_TILES = frozenset({"downsample", "rvtc_area", "rvtc_edge", "rvtc_ratio", "single_tile"})
_ON_CONNECTORS = frozenset({"all_compress", "image_vir", "lvtc", "pool", "pvtc", "random", "vanilla_vir", "vico"})


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of checkpoint."""

    name: KindName
    """The part of a model's name after the method."""

    title: str
    """Name for messages."""

    model_types: frozenset[str]
    """Values of `model_type` in its checkpoints' `config.json`."""

    at_marks: bool
    """Whether lmms-eval's own adapter moves images to the marks `<image>` in the text. Otherwise they stay where the
    task puts them."""

    thinking: Mapping[str, Any]
    """Generation settings of thinking mode, unless a task sets its own."""

    lacks: frozenset[str]
    """Methods that no checkpoint of this kind supports, which have no model."""

    @property
    def combined(self) -> str:
        """Name of the model that takes `method=`."""
        return f"{COMBINED}_{self.name}"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that have their own model, sorted."""
        return tuple(name for name in method_names() if name not in self.lacks)

    def model_of(self, method: str) -> str:
        """Return the name of a method's model."""
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
    """Return the kind for a checkpoint's `model_type`; None if it is unsupported."""
    return next((kind for kind in KINDS if model_type in kind.model_types), None)


def kind_of_checkpoint(pretrained: str) -> Kind | None:
    """Return the kind of a checkpoint by its `config.json`, which is downloaded for a hub id; None if it isn't
    available."""
    from vico_eval.families.checkpoint import config_values  # loads torch and transformers

    try:
        return kind_of(config_values(pretrained).get("model_type"))
    except CheckpointError:
        return None


def check_kind(kind: Kind, method: str | None, pretrained: str) -> None:
    """Check that a checkpoint has the kind in a model's name.

    Args:
        kind: the model's kind.
        method: the model's method; None for the model that takes `method=`.
        pretrained: the checkpoint. A missing or unsupported one is reported by the loader.

    Raises:
        CheckpointError: it has another kind; the message names the right model.
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
    """Split a model's name into the method, or `COMBINED`, and the kind; None if it isn't such a name.

    `internvl_x`, which takes `variant=`, isn't.
    """
    for kind in KINDS:
        if model.endswith(f"_{kind.name}"):
            return model.removesuffix(f"_{kind.name}"), kind
    return None
