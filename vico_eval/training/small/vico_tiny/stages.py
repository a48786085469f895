"""The small recipe's stages before ViCO's: the vision encoder, the base model, and the data for ViCO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.small.architecture import build_model, load_weights, save_weights
from vico_eval.training.small.data.batches import Batch
from vico_eval.training.small.data.drawing import step_rng
from vico_eval.training.small.data.parts import DocumentParts, fit_batches
from vico_eval.training.small.export import rounded, save_base
from vico_eval.training.small.loop import ParameterGroup
from vico_eval.training.small.processes import is_first, own_parts
from vico_eval.training.small.recipe import DenseRecipe, Recipe, StageName, TextBatchRecipe
from vico_eval.training.small.vico_tiny.base import base_loss
from vico_eval.training.small.vico_tiny.corpus import write_corpus
from vico_eval.training.small.vico_tiny.dense import DenseHead, dense_batch, dense_loss

BASE = "vico-tiny-base"
"""The finished base model's folder in a run's `out`."""


@dataclass(frozen=True)
class Run:
    """What every stage of a training run needs."""

    recipe: Recipe
    out: Path
    """Folder of weights and logs."""

    resume: bool
    """Continue stages from their last saved step."""

    tokenizer: PreTrainedTokenizerBase
    config: VicoInternVLConfig

    def model(self, stage: StageName | None) -> VicoInternVL:
        """A model with a stage's weights, frozen, in training mode; random weights without a stage."""
        model = build_model(self.config, self.recipe.seed)
        if stage is not None:
            load_weights(model, self.out / f"{stage}.safetensors")
        model.requires_grad_(False)
        model.train()
        return model

    def save(self, model: VicoInternVL, stage: StageName) -> None:
        """Leave a stage's weights for the next one."""
        if is_first():
            save_weights(model, self.out / f"{stage}.safetensors")


def train_dense(run: Run) -> None:
    """The ViT learns what each patch shows."""
    settings = run.recipe.dense
    model = run.model(None)
    head = DenseHead(run.config.vision_config.hidden_size)
    make = partial(_dense_parts, run.recipe.seed, run.tokenizer, run.config, settings, own_parts(settings.num_parts))

    def loss(step: int, part: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        tiles, cells = part
        return dense_loss(model, head, tiles, cells, settings.empty_weight)

    groups = [ParameterGroup("vision", model.vision_tower), ParameterGroup("head", head)]
    fit_batches("dense", settings, groups, make, loss, seed=run.recipe.seed, folder=run.out, resume=run.resume)
    run.save(model, "dense")


def train_base(run: Run) -> None:
    """The base model: every tile high."""
    settings = run.recipe.base
    model = run.model("dense")

    def loss(step: int, batch: Batch) -> dict[str, Tensor]:
        align_weight = settings.align_weight * max(0.0, 1 - step / max(1, settings.align_steps))
        return base_loss(model, batch, align_weight, train_vision=step >= settings.vision_from_step)

    decoder = nn.ModuleDict({"high": model.connector_high, "language": model.language_model})
    vision = ParameterGroup(
        "vision", model.vision_tower, settings.vision_learning_rate_share, from_step=settings.vision_from_step
    )
    _fit_documents(run, "base", settings, [ParameterGroup("decoder", decoder), vision], loss)
    run.save(model, "base")
    if is_first():
        save_base(rounded(model), run.tokenizer, run.out / BASE)


def make_corpus(run: Run) -> None:
    """Scenes as files, which ViCO's own stages train on."""
    write_corpus(run.recipe.seed, run.recipe.corpus.samples_per_task, run.out)


def _fit_documents(
    run: Run,
    stage: StageName,
    settings: TextBatchRecipe,
    groups: list[ParameterGroup],
    loss: Callable[[int, Batch], dict[str, Tensor]],
) -> None:
    own = own_parts(settings.num_parts)
    make = DocumentParts(run.recipe.seed, stage, run.tokenizer, run.config, settings, own)
    fit_batches(stage, settings, groups, make, loss, seed=run.recipe.seed, folder=run.out, resume=run.resume)


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
