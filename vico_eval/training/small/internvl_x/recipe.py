"""The training recipe of the small InternVL-X models: a YAML file with a closed schema, read like the small ViCO's.

Source: InternVL-X (arXiv 2503.21307), which trains in two stages: first the projector alone, then everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, model_validator

from vico_eval.training.config_files import SEEDS_END, ClosedConfig, read_config
from vico_eval.training.small.recipe import MOST_PROCESSES, TextBatchRecipe, check_shares, chosen

VariantName = Literal["base", "pvtc", "lvtc", "full"]
VARIANTS: tuple[VariantName, ...] = get_args(VariantName)
"""Every variant, in the order in which they are trained."""

RECIPE = "models/internvl-x-tiny/recipe.yaml"
"""The example recipe, named in errors."""

METHODS: dict[VariantName, str] = {
    "base": "vanilla",
    "pvtc": "pvtc",
    "lvtc": "lvtc",
    "full": "rvtc_edge+pvtc+lvtc",
}
"""The method that each variant is trained with and must be run with."""


class LVTCRecipe(ClosedConfig):
    """LVTC's positions in the decoder; None means `LVTCSettings.defaults` for the decoder's number of layers."""

    num_low_resolution: int = Field(ge=1)
    expand_before: int | None = Field(default=None, ge=0)
    first_insertion: int | None = Field(default=None, ge=0)
    insertion_interval: int | None = Field(default=None, ge=1)
    upsample: Literal["nearest", "bilinear"] = "nearest"


class SingleQuestionRecipe(TextBatchRecipe):
    """A stage on documents with one question each; several would need separate masks after LVTC's expansion."""

    max_questions: int = Field(default=1, ge=1, le=1)


class ProjectorRecipe(SingleQuestionRecipe):
    """The stage that trains the new projectors alone."""

    align_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss that aligns visual tokens with the embeddings of the glyphs they show, which a new projector
    must learn again. It is the same for every variant."""


class EverythingRecipe(SingleQuestionRecipe):
    """The stage that trains vision encoder, projectors and decoder."""

    vision_learning_rate_share: float = Field(default=0.5, gt=0)
    """The vision encoder's learning rate as a share of the stage's."""


class InternVLXRecipe(ClosedConfig):
    """A whole training run."""

    seed: int = Field(ge=0, lt=SEEDS_END)
    processes: int = Field(ge=1, le=MOST_PROCESSES)
    """Number of single-threaded processes. It is in the recipe because the order of float additions depends on it."""

    base: str = "vico-tiny-base"
    """The checkpoint whose vision encoder and decoder every variant starts from. Its connector is discarded."""

    lvtc: LVTCRecipe
    projector: ProjectorRecipe
    everything: EverythingRecipe
    num_validation_documents: int = Field(ge=1)

    @model_validator(mode="after")
    def _parts_can_be_shared(self) -> InternVLXRecipe:
        check_shares(self.processes, projector=self.projector, everything=self.everything)
        return self


def load_internvl_x_recipe(path: Path) -> InternVLXRecipe:
    """Read and validate a recipe file; raises ConfigError as `read_config` does."""
    return read_config(path, InternVLXRecipe, RECIPE)


def parse_variants(names: Sequence[str]) -> tuple[VariantName, ...]:
    """Return the named variants in the order in which they are trained; raises ConfigError if a name is unknown."""
    return chosen("variant", names, VARIANTS)
