"""Both stages of every variant for two steps, their checkpoints as evaluation loads them, and unusable recipes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn.functional import one_hot

import vico_eval
from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.methods import registry
from vico_eval.methods.interface import ResolutionPart, TileLimits
from vico_eval.methods.lvtc import LVTCSettings
from vico_eval.paths import models_dir
from vico_eval.tiny.scenes import GRIDS, TASKS, make_scene
from vico_eval.training.small.architecture import build_config, build_model
from vico_eval.training.small.data import parts as data
from vico_eval.training.small.data.documents import DocumentMaker
from vico_eval.training.small.data.drawing import make_batch, step_rng
from vico_eval.training.small.decoding import encode, routed_logits
from vico_eval.training.small.evaluate import all_high, evaluate, percent_right, validation_batches
from vico_eval.training.small.export import save_base
from vico_eval.training.small.internvl_x.recipe import (
    METHODS,
    VARIANTS,
    InternVLXRecipe,
    load_internvl_x_recipe,
    parse_variants,
)
from vico_eval.training.small.internvl_x.train import full_logits, start_model, train

STAGE = {"steps": 2, "learning_rate": 0.01, "num_tokens": 600, "num_parts": 2, "warmup_steps": 0, "save_every": 1}


@pytest.fixture(scope="module", autouse=True)
def no_workers():
    """Batches in this process: a worker's start-up is longer than these stages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "WORKERS", 0)
        yield


@pytest.fixture(scope="module")
def recipe(micro_recipe, tokenizer, tmp_path_factory) -> InternVLXRecipe:
    """On an untrained base of four layers."""
    folder = tmp_path_factory.mktemp("base")
    config = build_config(micro_recipe.model.model_copy(update={"text_layers": 4}), tokenizer)
    save_base(build_model(config, seed=0), tokenizer, folder)
    return InternVLXRecipe.model_validate(
        {
            "seed": 5,
            "processes": 1,
            "base": str(folder),
            "lvtc": {"num_low_resolution": 2},
            "projector": STAGE,
            "everything": {**STAGE, "optimizer": "muon"},
            "num_validation_documents": len(TASKS),
        }
    )


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(recipe, folder)
    return folder


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_finished_checkpoint_answers_with_its_method(trained, variant):
    folder = trained / f"internvl-x-tiny-{variant}"
    checkpoint = find_checkpoint(str(folder))
    assert ("pvtc" in checkpoint.config.parts) == (variant in ("pvtc", "full"))
    assert ("lvtc" in checkpoint.config.parts) == (variant in ("lvtc", "full"))
    assert all(value.dtype == torch.bfloat16 for value in load_file(folder / "model.safetensors").values())
    scene = make_scene("read", np.random.default_rng(0), (2, 1))
    answer = vico_eval.load(str(folder), METHODS[variant]).ask("What?", images=list(scene.images), max_new_tokens=2)
    # Two tiles and the thumbnail; LVTC expands 16 to 64 tokens a tile before layer 2 of four.
    expected = (48, 48, 192, 192) if variant in ("lvtc", "full") else (48,) * 4
    assert answer.account.visual_tokens_per_layer == expected
    measured = next(entry for entry in log_of(trained / variant) if "mean" in entry)
    assert measured["visual_tokens_per_tile_and_layer"] == [tokens / 3 for tokens in expected]
    assert measured["mean"] == sum(expected) / 3 / 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_stage_moves_the_projectors_alone_and_the_second_everything(recipe, trained, variant):
    start = start_model(recipe, find_checkpoint(recipe.base), registry.build(METHODS[variant])).state_dict()
    between = load_file(trained / variant / "projector.safetensors")
    end = load_model(find_checkpoint(str(trained / f"internvl-x-tiny-{variant}")), dtype="float32").state_dict()
    projectors = {"connector_high"} | ({"lvtc"} if variant in ("lvtc", "full") else set())
    assert {name.split(".")[0] for name in between if not torch.equal(between[name], start[name])} == projectors
    # The checkpoint is rounded: what has moved is farther away than that.
    moved = {
        name.split(".")[0]
        for name in between
        if (end[name] - between[name]).abs().max() > 2**-7 * between[name].abs().max()
    }
    assert moved == projectors | {"vision_tower", "language_model"}


def test_every_variant_starts_from_the_same_encoder_and_decoder_and_sees_the_same_documents(recipe, trained, tokenizer):
    checkpoint = find_checkpoint(recipe.base)
    base = load_model(checkpoint, dtype="float32")
    seen = []
    for variant in VARIANTS:
        method = registry.build(METHODS[variant])
        model = start_model(recipe, checkpoint, method)
        for name, value in model.state_dict().items():
            if name.startswith(("vision_tower.", "language_model.")):
                assert torch.equal(value, base.state_dict()[name])
        if variant == "base":
            assert not torch.equal(model.connector_high.linear_1.weight, base.connector_high.linear_1.weight)
        seen.append(
            make_batch(
                step_rng(5, "projector/0", 0),
                DocumentMaker(tokenizer, model.config, method.resolution),
                num_tokens=600,
                max_questions=1,
            )
        )
    assert all(torch.equal(batch.tiles, seen[0].tiles) for batch in seen)
    assert all(torch.equal(batch.input_ids, seen[0].input_ids) for batch in seen)


def test_both_stages_and_the_accuracy_of_each_task_are_in_the_log(trained):
    for variant in VARIANTS:
        entries = log_of(trained / variant)
        assert [entry["phase"] for entry in entries if "phase" in entry] == ["projector"] * 2 + ["everything"] * 2
        assert "align" in next(entry for entry in entries if entry.get("phase") == "projector")
        (validation,) = [entry for entry in entries if "validation" in entry]
        assert set(TASKS) < set(validation)


def test_resuming_keeps_what_is_finished_and_repeats_nothing_of_a_stage(recipe, trained, tmp_path):
    whole = (trained / "internvl-x-tiny-lvtc" / "model.safetensors").read_bytes()
    train(recipe, tmp_path, ("lvtc",))
    finished = tmp_path / "internvl-x-tiny-lvtc"
    before = log_of(tmp_path / "lvtc")
    train(recipe, tmp_path, ("lvtc",), resume=True)
    assert log_of(tmp_path / "lvtc") == before
    # As if it had been stopped behind the first of two steps of the second stage.
    (finished / "config.json").unlink()
    shutil.rmtree(tmp_path / "lvtc" / "checkpoints" / "everything" / "step-0000002")
    train(recipe, tmp_path, ("lvtc",), resume=True)
    stages = [entry["phase"] for entry in log_of(tmp_path / "lvtc")[len(before) :] if "phase" in entry]
    assert stages == ["everything"]
    assert (finished / "model.safetensors").read_bytes() == whole


def test_another_recipe_is_not_resumed(recipe, trained):
    other = recipe.model_copy(update={"seed": 6})
    with pytest.raises(ConfigError, match="has a run of another recipe"):
        train(other, trained, resume=True)


def test_answers_are_right_where_all_their_tokens_are(trained, tokenizer):
    model = load_model(find_checkpoint(str(trained / "internvl-x-tiny-base")), dtype="float32")
    batches = validation_batches(tokenizer, model, seed=0, num_documents=2 * len(TASKS))
    certain = percent_right(model, batches, lambda batch, _: one_hot(batch.answers, 300).float())
    assert certain == dict.fromkeys(TASKS, 100)
    # The end of each answer is missed.
    end = tokenizer.eos_token_id
    endless = percent_right(model, batches, lambda batch, _: one_hot(batch.answers.where(batch.answers != end, 0), 300))
    assert endless == dict.fromkeys(TASKS, 0)


def test_lvtc_is_evaluated_through_its_decoder(trained, tokenizer):
    model = load_model(find_checkpoint(str(trained / "internvl-x-tiny-lvtc")), dtype="float32")
    ((_, batch),) = validation_batches(tokenizer, model, seed=0, num_documents=1)
    with torch.inference_mode():
        vit_tokens = encode(model, batch)
        plain = routed_logits(model, batch, vit_tokens, torch.zeros(len(vit_tokens), dtype=torch.bool))
        model.use_decoder_part(registry.build("lvtc").decoder)
        logits = full_logits(model, batch, vit_tokens)
    assert logits.shape == plain.shape
    assert not torch.allclose(logits, plain, atol=1e-4)


def test_a_plain_model_is_evaluated_as_without_compression(recipe, tokenizer):
    model = load_model(find_checkpoint(recipe.base), dtype="float32")
    batches = validation_batches(tokenizer, model, seed=0, num_documents=len(TASKS))
    plain = percent_right(model, batches, lambda batch, vit_tokens: full_logits(model, batch, vit_tokens))
    assert evaluate(model, batches, all_high).by_task == plain


def test_training_cuts_tiles_with_the_part_it_is_given(micro_model, tokenizer):
    class OneTile(ResolutionPart):
        def limits(self, image):
            assert (image.width, image.height) == (2 * image.tile_size, image.tile_size)
            return TileLimits(1, 1)

    scene = make_scene("read", np.random.default_rng(0), (2, 1))
    plain = DocumentMaker(tokenizer, micro_model.config)(scene, scene.questions[:1])
    cut = DocumentMaker(tokenizer, micro_model.config, OneTile(None))(scene, scene.questions[:1])
    assert (len(plain.tiles), len(cut.tiles)) == (3, 1)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_edge_rule_changes_nothing_on_pictures_of_whole_tiles(micro_model, tokenizer, grid):
    scene = make_scene("count", np.random.default_rng(1), grid)
    edge = registry.build("rvtc_edge").resolution
    plain, cut = (
        DocumentMaker(tokenizer, micro_model.config, part)(scene, scene.questions[:1]) for part in (None, edge)
    )
    assert np.array_equal(plain.tiles, cut.tiles)


def test_the_shipped_recipe_is_valid_and_fits_the_built_in_base():
    recipe = load_internvl_x_recipe(models_dir() / "internvl-x-tiny" / "recipe.yaml")
    checkpoint = find_checkpoint(recipe.base)
    model = start_model(recipe, checkpoint, registry.build(METHODS["full"]))
    # A decoder of four layers: s = i = 1 and k = 2, so one insertion.
    settings = LVTCSettings(**model.config.parts["lvtc"])
    assert (settings.insertions, settings.expand_before) == ((1,), 2)
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lvtcc": {}}, "lvtcc"),
        ({"lvtc": {"num_low_resolution": 2, "k": 3}}, r"lvtc\.k"),
        ({"projector": {**STAGE, "max_questions": 4}}, r"projector\.max_questions"),
        ({"everything": {**STAGE, "align_weight": 1}}, r"everything\.align_weight"),
    ],
)
def test_a_wrong_recipe_names_its_field(tmp_path, changes, named):
    content = yaml.safe_load((models_dir() / "internvl-x-tiny" / "recipe.yaml").read_text())
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    with pytest.raises(ConfigError, match=named):
        load_internvl_x_recipe(path)


def test_lvtc_that_the_decoder_cannot_run_is_refused(recipe, tmp_path):
    deep = recipe.model_copy(update={"lvtc": recipe.lvtc.model_copy(update={"num_low_resolution": 3})})
    with pytest.raises(ConfigError, match="expected every insertion before the expansion"):
        train(deep, tmp_path, ("lvtc",))


def test_a_missing_base_and_an_unknown_variant_are_users_errors(recipe, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        train(recipe.model_copy(update={"base": "nowhere"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="rvtc; the variants are base, pvtc, lvtc, full"):
        parse_variants(["rvtc"])
    assert parse_variants(["full", "base"]) == ("base", "full")
