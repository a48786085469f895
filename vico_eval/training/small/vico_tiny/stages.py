"""The small recipe's stages before ViCO's own: the vision encoder, the base model, and ViCO's training data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.loop.phase import Training
from vico_eval.training.small.architecture import build_model, load_weights, save_weights
from vico_eval.training.small.data.batches import Batch
from vico_eval.training.small.data.drawing import step_rng
from vico_eval.training.small.data.parts import DocumentParts
from vico_eval.training.small.export import rounded, save_base
from vico_eval.training.small.loop import ParameterGroup, fit, own_parts
from vico_eval.training.small.recipe import DenseRecipe, Recipe, StageName
from vico_eval.training.small.vico_tiny.base import base_loss
from vico_eval.training.small.vico_tiny.corpus import write_corpus
from vico_eval.training.small.vico_tiny.dense import DenseHead, dense_batch, dense_loss

BASE = "vico-tiny-base"
"""The finished base model's folder in a run's `out`."""


@dataclass(frozen=True)
class RecipeRun:
    """The inputs of every stage of a recipe."""

    recipe: Recipe
    training: Training
    resume: bool
    """Whether to resume stages from their last checkpoint."""

    tokenizer: PreTrainedTokenizerBase
    config: VicoInternVLConfig

    @property
    def out(self) -> Path:
        """The folder for weights and logs."""
        return self.training.out

    def own_parts(self, num_parts: int) -> range:
        """Return the numbers of the parts that this process computes."""
        return own_parts(self.training.accelerator, num_parts)

    def model(self, stage: StageName | None) -> VicoInternVL:
        """Return a frozen model in training mode, with a stage's weights, or random ones if `stage` is None."""
        model = build_model(self.config, self.recipe.seed)
        if stage is not None:
            load_weights(model, self.out / f"{stage}.safetensors")
        model.requires_grad_(False)
        model.train()
        return model

    def save(self, model: VicoInternVL, stage: StageName) -> None:
        """Save a stage's weights for the next one."""
        if self.training.accelerator.is_main_process:
            save_weights(model, self.out / f"{stage}.safetensors")


def train_dense(run: RecipeRun) -> None:
    """Train the ViT to classify what each patch shows."""
    settings = run.recipe.dense
    model = run.model(None)
    head = DenseHead(run.config.vision_config.hidden_size)
    own = run.own_parts(settings.num_parts)
    make = partial(_dense_parts, run.recipe.seed, run.tokenizer, run.config, settings, own)

    def loss(step: int, part: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        tiles, cells = part
        return dense_loss(model, head, tiles, cells, settings.empty_weight)

    groups = [ParameterGroup("vision", model.vision_tower), ParameterGroup("head", head)]
    fit(run.training, "dense", settings, groups, make, loss, resume=run.resume)
    run.save(model, "dense")


def train_base(run: RecipeRun) -> None:
    """Train the base model, with every tile high."""
    settings = run.recipe.base
    model = run.model("dense")

    def loss(step: int, batch: Batch) -> dict[str, Tensor]:
        align_weight = settings.align_weight * max(0.0, 1 - step / max(1, settings.align_steps))
        return base_loss(model, batch, align_weight, train_vision=step >= settings.vision_from_step)

    groups = [
        ParameterGroup("decoder", nn.ModuleDict({"high": model.connector_high, "language": model.language_model})),
        ParameterGroup("vision", model.vision_tower, settings.vision_learning_rate_share),
    ]
    own = run.own_parts(settings.num_parts)
    make = DocumentParts(run.recipe.seed, "base", run.tokenizer, run.config, settings, own)
    fit(run.training, "base", settings, groups, make, loss, resume=run.resume)
    run.save(model, "base")
    if run.training.accelerator.is_main_process:
        save_base(rounded(model), run.tokenizer, run.out / BASE)


def make_corpus(run: RecipeRun) -> None:
    """Write the training data of ViCO's own stages."""
    write_corpus(run.training, run.recipe.corpus.samples_per_task)


def _dense_parts(
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    config: VicoInternVLConfig,
    settings: DenseRecipe,
    own: range,
    step: int,
) -> list[tuple[int, tuple[Tensor, Tensor]]]:
    num_tiles = settings.num_tiles // settings.num_parts
    return [(part, dense_batch(step_rng(seed, f"dense/{part}", step), tokenizer, config, num_tiles)) for part in own]
