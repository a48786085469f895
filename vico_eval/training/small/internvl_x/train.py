"""Training of the small InternVL-X models: `vico-eval train internvl-x RECIPE --out DIR`.

Every variant starts from the vision encoder and decoder of the same base checkpoint with new projectors. It trains the
projectors alone, then everything, on the same documents as the other variants. `base` has a new InternVL connector and
is the fair baseline: the base checkpoint itself was trained for longer.

DIR/<variant> has a variant's log and the weights between its stages, DIR/internvl-x-tiny-<variant> its finished
checkpoint.

Source: InternVL-X (arXiv 2503.21307), sections 3 and 4.
Differs: the projector stage may align visual tokens with the glyphs they show. RVTC has no weights; `full` is trained
         with its edge tiling, which makes no difference on the built-in benchmark, whose images consist of whole tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.model import load
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.checkpoint import Checkpoint, find_checkpoint, load_model, load_tokenizer
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.files import write_text
from vico_eval.methods import registry
from vico_eval.methods.lvtc import LVTCSettings
from vico_eval.methods.registry import Method
from vico_eval.tiny.scenes import make_scene
from vico_eval.training.loop.accelerated import on_main
from vico_eval.training.loop.phase import Training
from vico_eval.training.small.architecture import load_weights, save_weights
from vico_eval.training.small.data.batches import Batch
from vico_eval.training.small.data.parts import DocumentParts
from vico_eval.training.small.decoding import encode, routed_logits
from vico_eval.training.small.evaluate import percent_right, validation_batches
from vico_eval.training.small.export import rounded, save_vico
from vico_eval.training.small.internvl_x.lvtc import lvtc_logits
from vico_eval.training.small.internvl_x.recipe import (
    METHODS,
    VARIANTS,
    InternVLXRecipe,
    SingleQuestionRecipe,
    VariantName,
)
from vico_eval.training.small.loop import ParameterGroup, fit, opened, own_parts, training_in
from vico_eval.training.small.vico_tiny.base import glyph_alignment
from vico_eval.yaml_files import read_yaml

FINISHED = "internvl-x-tiny-{}"
"""The name of a variant's finished checkpoint."""


@dataclass(frozen=True)
class VariantRun:
    """The inputs of both stages of one variant."""

    variant: VariantName
    recipe: InternVLXRecipe
    training: Training
    """Its output folder has the log and the weights between the stages."""

    resume: bool
    tokenizer: PreTrainedTokenizerBase
    method: Method
    model: VicoInternVL
    """The model in training mode, with the method's decoder part."""


def train(
    recipe: InternVLXRecipe, out: Path, variants: tuple[VariantName, ...] = VARIANTS, resume: bool = False
) -> None:
    """Train variants one after another; every process of a training makes the same call.

    Raises:
        ConfigError: `resume` is set, but `out` has a run of another recipe.
        CheckpointError: the base checkpoint is missing or not compatible with a part.
        NotFinite: a stage computed a number that is not finite.
        OutputError: another training is writing into `out`.
    """
    find_checkpoint(recipe.base)  # report a wrong name before creating the folder
    with opened(out) as accelerator:
        on_main(accelerator, lambda: note_recipe(recipe, out, resume))
        for variant in variants:
            finished = out / FINISHED.format(variant)
            training = training_in(out / variant, accelerator, recipe.seed, {"recipe": recipe.model_dump(mode="json")})
            if resume and (finished / "config.json").exists():
                training.watch.say(f"{variant}: already finished")
                continue
            train_variant(recipe, variant, training, finished, resume)
            accelerator.wait_for_everyone()


def note_recipe(recipe: InternVLXRecipe, out: Path, resume: bool) -> None:
    """Write the recipe to `out`; raises ConfigError if a run of another recipe is to be resumed."""
    values = recipe.model_dump(mode="json")
    path = out / "recipe.yaml"
    if resume and path.exists() and read_yaml(TypeAdapter(dict[str, Any]), path) != values:
        raise ConfigError(
            f"{out} has a run of another recipe (its {path.name} differs). Choose another folder, or train without "
            "--resume."
        )
    write_text(path, yaml.safe_dump(values, sort_keys=False))


def train_variant(
    recipe: InternVLXRecipe, variant: VariantName, training: Training, finished: Path, resume: bool
) -> None:
    """Run both stages of one variant, save its checkpoint, and log its accuracy."""
    checkpoint = find_checkpoint(recipe.base)
    method = registry.build(METHODS[variant])
    model = start_model(recipe, checkpoint, method)
    model.use_decoder_part(method.decoder)
    model.train()
    run = VariantRun(variant, recipe, training, resume, load_tokenizer(checkpoint), method, model)
    identity = checkpoint.identity()
    training.watch.write({"variant": variant, "base": identity["name"], "sha256": identity["sha256"]})
    train_projector(run)
    train_everything(run)
    if training.accelerator.is_main_process:
        finish(run, finished)


def start_model(recipe: InternVLXRecipe, checkpoint: Checkpoint, method: Method) -> VicoInternVL:
    """Build a frozen float32 model from the base checkpoint's vision encoder and decoder, with new projectors.

    The projectors' weights are random, with the recipe's seed.

    Raises:
        CheckpointError: the decoder's width or depth is not compatible with a part.
        ConfigError: the decoder can't run the LVTC settings.
    """
    base = load_model(checkpoint, dtype="float32", device="cpu")
    of_part = {"pvtc": {}, "lvtc": lvtc_values(recipe, base.config)}
    parts = {name: settings for name, settings in of_part.items() if name in method.name.split("+")}
    values = base.config.to_dict() | {"parts": parts}
    torch.manual_seed(recipe.seed)
    model = VicoInternVL(VicoInternVLConfig(**values))
    model.to(torch.float32)  # type: ignore[arg-type]
    model.vision_tower.load_state_dict(base.vision_tower.state_dict())
    model.language_model.load_state_dict(base.language_model.state_dict())
    model.requires_grad_(False)
    return model


def lvtc_values(recipe: InternVLXRecipe, config: VicoInternVLConfig) -> dict[str, object]:
    """Return LVTC's configuration: the recipe's values, with defaults for the decoder's depth where it has none."""
    given = recipe.lvtc.model_dump(exclude_none=True)
    return vars(LVTCSettings.defaults(config.text_config.num_hidden_layers, **given))


def train_projector(run: VariantRun) -> None:
    """Run stage 1, which trains the new projectors alone; if resumed, a completed stage is not repeated."""
    settings, model = run.recipe.projector, run.model
    weights = run.training.out / "projector.safetensors"
    if run.resume and weights.exists():
        load_weights(model, weights)
        return

    def loss(step: int, batch: Batch) -> dict[str, Tensor]:
        return answer_loss(model, batch, settings.align_weight, train_vision=False)

    _fit(run, "projector", settings, [ParameterGroup("projector", projectors(model))], loss)
    model.requires_grad_(False)
    if run.training.accelerator.is_main_process:
        save_weights(model, weights)
    run.training.accelerator.wait_for_everyone()


def train_everything(run: VariantRun) -> None:
    """Run stage 2, which trains vision encoder, projectors and decoder."""
    settings, model = run.recipe.everything, run.model

    def loss(step: int, batch: Batch) -> dict[str, Tensor]:
        return answer_loss(model, batch, 0.0, train_vision=True)

    groups = [
        ParameterGroup("projector", projectors(model)),
        ParameterGroup("language", model.language_model),
        ParameterGroup("vision", model.vision_tower, settings.vision_learning_rate_share),
    ]
    _fit(run, "everything", settings, groups, loss)


def projectors(model: VicoInternVL) -> nn.ModuleDict:
    """Return the modules that map vision tokens to the decoder's width: the connector and any LVTC projectors."""
    parts: dict[str, nn.Module] = {"connector": model.connector_high}
    if model.lvtc is not None:
        parts["lvtc"] = model.lvtc
    return nn.ModuleDict(parts)


def answer_loss(model: VicoInternVL, batch: Batch, align_weight: float, *, train_vision: bool) -> dict[str, Tensor]:
    """Return the cross-entropy on answer tokens plus the weighted loss that aligns the connector's tokens with their
    glyphs."""
    with torch.set_grad_enabled(train_vision):
        vit_tokens = encode(model, batch)
    answer = F.cross_entropy(full_logits(model, batch, vit_tokens), batch.answers)
    losses = {"loss": answer, "answer": answer.detach()}
    if align_weight > 0:
        visual = model.connector_high(vit_tokens)
        align = glyph_alignment(visual, batch.glyphs.flatten(1), model.get_input_embeddings().weight)
        losses["loss"] = answer + align_weight * align
        losses["align"] = align.detach()
    return losses


def full_logits(model: VicoInternVL, batch: Batch, vit_tokens: Tensor) -> Tensor:
    """Return answer logits [answers, V] with every tile at full length, through LVTC if the model has it."""
    if model.lvtc is not None:
        return lvtc_logits(model, batch, vit_tokens)
    return routed_logits(model, batch, vit_tokens, torch.zeros(len(vit_tokens), dtype=torch.bool))


def finish(run: VariantRun, folder: Path) -> None:
    """Save the checkpoint, and log its validation accuracy and the visual tokens that the saved model used."""
    model = rounded(run.model)
    seed, documents = run.recipe.seed, run.recipe.num_validation_documents
    batches = validation_batches(run.tokenizer, model, seed, documents, resolution=run.method.resolution)
    by_task = percent_right(model, batches, lambda batch, vit_tokens: full_logits(model, batch, vit_tokens))
    model.use_decoder_part(None)
    save_vico(model, run.tokenizer, folder)
    tokens = visual_tokens_per_layer(folder, run.method.name)
    percent = {task: round(value, 1) for task, value in by_task.items()}
    average, per_layer = round(fmean(by_task.values()), 2), round(fmean(tokens), 2)
    run.training.watch.write({"validation": run.variant, "average": average, **percent})
    run.training.watch.write({"visual_tokens_per_tile_and_layer": tokens, "mean": per_layer})
    run.training.watch.say(
        f"{run.variant}: {average}% correct, {per_layer:g} visual tokens per tile and layer  {percent}"
    )


def visual_tokens_per_layer(folder: Path, method: str) -> list[float]:
    """Return the number of visual tokens per tile in each layer, from the account of one answer of a saved model."""
    scene = make_scene("read", np.random.default_rng(0))
    answer = load(str(folder), method, device="cpu").ask(
        scene.questions[0].text, images=list(scene.images), max_new_tokens=1
    )
    return [tokens / answer.account.tiles for tokens in answer.account.visual_tokens_per_layer]


def _fit(
    run: VariantRun,
    stage: str,
    settings: SingleQuestionRecipe,
    groups: list[ParameterGroup],
    loss: Callable[[int, Batch], dict[str, Tensor]],
) -> None:
    make = DocumentParts(
        run.recipe.seed,
        stage,
        run.tokenizer,
        run.model.config,
        settings,
        own_parts(run.training.accelerator, settings.num_parts),
        run.method.resolution,
    )
    fit(run.training, stage, settings, groups, make, loss, resume=run.resume)
