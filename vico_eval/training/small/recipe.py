"""The training recipe of a small model: one YAML file with a closed schema.

The file has everything that determines the weights: the seed, the architecture and, for every stage, its steps, batch
sizes and learning rates. Stages are measured in steps, never in seconds, so that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

from pydantic import Field, model_validator

from vico_eval.errors import ConfigError
from vico_eval.training.config_files import MOST_WIDE, SEEDS_END, ClosedConfig, read_config

StageName = Literal["dense", "base", "corpus", "calibration"]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""Every stage, in the order in which they run."""

BEFORE_VICO: tuple[StageName, ...] = ("dense", "base", "corpus")
"""The stages that come before ViCO's own; `calibration` comes after them."""


MOST_LAYERS = 1024
MOST_FRAMES = 4096
MOST_PROCESSES = 1024

Name = TypeVar("Name", bound=str)


class ModelRecipe(ClosedConfig):
    """The sizes of the small model; tiles, patches and connectors keep InternVL's 4:1 ratio."""

    tile_size: int = Field(default=56, ge=1, le=4096)
    """Side of a tile in pixels."""

    patch_size: int = Field(default=7, ge=1)
    """Side of a ViT patch in pixels."""

    num_frames: int = Field(default=8, ge=1, le=MOST_FRAMES)
    """Number of frames per video."""

    vision_width: int = Field(default=96, ge=1, le=MOST_WIDE)
    vision_layers: int = Field(default=3, ge=1, le=MOST_LAYERS)
    vision_heads: int = Field(default=4, ge=1)
    vision_mlp_width: int = Field(default=288, ge=1, le=MOST_WIDE)
    text_width: int = Field(default=160, ge=1, le=MOST_WIDE)
    text_layers: int = Field(default=4, ge=1, le=MOST_LAYERS)
    text_heads: int = Field(default=6, ge=1, le=MOST_WIDE)
    text_kv_heads: int = Field(default=6, ge=1)
    text_head_width: int = Field(default=32, ge=2, le=MOST_WIDE, multiple_of=2)
    text_mlp_width: int = Field(default=384, ge=1, le=MOST_WIDE)
    router_heads: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> ModelRecipe:
        for whole, part in (
            # The high connector merges squares of 2 x 2 patches, and the low one squares of 4 x 4.
            ("tile_size", self.patch_size * 4),
            ("vision_width", self.vision_heads),
            ("vision_width", self.router_heads),
            ("text_heads", self.text_kv_heads),
        ):
            if getattr(self, whole) % part:
                raise ValueError(
                    f"{whole} {getattr(self, whole)} is not a multiple of {part}; tile_size must be a multiple of 4 x "
                    "patch_size, vision_width of vision_heads and of router_heads, text_heads of text_kv_heads"
                )
        return self


class Schedule(ClosedConfig):
    """A stage's optimizer settings: linear warm-up, then a cosine from `learning_rate` to `final_share` of it."""

    steps: int = Field(ge=1)

    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=30, ge=0)
    final_share: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` uses Muon for the matrices inside decoder layers and AdamW for everything else."""

    num_parts: int = Field(default=3, ge=1)
    """Number of parts of a step's batch, each computed by one process."""

    save_every: int = Field(default=200, ge=1)
    """Steps between resumable checkpoints of the stage."""


class DenseRecipe(Schedule):
    """Training of the ViT alone to classify what each 7x7 px cell of a tile shows."""

    num_tiles: int = Field(ge=1)
    """Tiles per step."""

    empty_weight: float = Field(default=0.2, gt=0, le=1)
    """Weight of an empty cell in the cross-entropy; most cells are empty."""

    @model_validator(mode="after")
    def _every_part_has_one(self) -> DenseRecipe:
        if self.num_tiles < self.num_parts:
            raise ValueError(f"num_tiles {self.num_tiles} leaves some of num_parts {self.num_parts} without a tile")
        return self


class TextBatchRecipe(Schedule):
    """A stage that trains the decoder on documents."""

    num_tokens: int = Field(ge=1)
    """Decoder tokens per step with every tile high, including padding. All documents of a part have the same number of
    tiles."""

    max_questions: int = Field(default=4, ge=1)
    """Maximum number of questions per document; no question attends to another."""


class BaseRecipe(TextBatchRecipe):
    """The base model: next-token loss on answers, high tokens only."""

    vision_from_step: int = Field(ge=0)
    """The ViT is frozen before this step."""

    vision_learning_rate_share: float = Field(default=0.5, gt=0)
    """The ViT's learning rate as a share of the stage's."""

    align_steps: int = Field(ge=0)
    """Steps over which the weight of the alignment loss falls linearly to zero."""

    align_weight: float = Field(default=1.0, ge=0)
    lookup_steps: int = Field(default=0, ge=0)
    """Number of initial steps with only small images from tasks that look an object up by its name (`drawing.LOOKUP`).
    Models learn late and suddenly to match a word with a visual token, and earlier if they train on little else."""


class CorpusRecipe(ClosedConfig):
    """The training data of ViCO's stages."""

    samples_per_task: int = Field(ge=1)
    """Number of scenes per task, with one question each."""


class CalibrationRecipe(ClosedConfig):
    """The choice of absolute thresholds on validation documents, for a given share of compressed tiles."""

    num_documents: int = Field(ge=1)
    compressed_tile_ratio: float = Field(gt=0, lt=1)


class Recipe(ClosedConfig):
    """A whole training run."""

    seed: int = Field(ge=0, lt=SEEDS_END)
    processes: int = Field(ge=1, le=MOST_PROCESSES)
    """Number of single-threaded processes. It is in the recipe because the order of float additions depends on it."""

    model: ModelRecipe = ModelRecipe()
    dense: DenseRecipe
    base: BaseRecipe
    corpus: CorpusRecipe
    calibration: CalibrationRecipe

    @model_validator(mode="after")
    def _parts_can_be_shared(self) -> Recipe:
        check_shares(self.processes, dense=self.dense, base=self.base)
        return self


def check_shares(processes: int, **stages: Schedule) -> None:
    """Check that a step's parts can be divided evenly among the processes; raises ValueError."""
    for name, stage in stages.items():
        if stage.num_parts % processes:
            raise ValueError(
                f"{name}.num_parts {stage.num_parts} can't be divided among {processes} processes; expected a multiple"
            )


def load_recipe(path: Path) -> Recipe:
    """Read and validate the recipe of the small ViCO; raises ConfigError as `read_config` does."""
    return read_config(path, Recipe, "models/vico-tiny/recipe.yaml")


def parse_stages(names: Sequence[str]) -> tuple[StageName, ...]:
    """Return the named stages in the order in which they run.

    Raises:
        ConfigError: a name is unknown.
    """
    return chosen("stage", names, STAGES)


def chosen(kind: str, names: Sequence[str], known: tuple[Name, ...]) -> tuple[Name, ...]:
    """Return the given names in the order of `known`; raises ConfigError if a name is unknown."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f"Unknown {kind} {', '.join(unknown)}; the {kind}s are {', '.join(known)}.")
    return tuple(name for name in known if name in names)
