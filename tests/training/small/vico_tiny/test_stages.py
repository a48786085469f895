"""Stages that resume, and recipes that can't be used."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.paths import models_dir
from vico_eval.training.small.data import parts as data
from vico_eval.training.small.recipe import Recipe, load_recipe, parse_stages
from vico_eval.training.small.vico_tiny.train import train


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Batches in this process: a worker's start-up is longer than these stages."""
    monkeypatch.setattr(data, "WORKERS", 0)


def digest(folder, stage):
    return hashlib.sha256((folder / f"{stage}.safetensors").read_bytes()).hexdigest()


def test_a_stage_stopped_half_way_ends_with_the_same_weights(micro_recipe, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        train(micro_recipe, folder, ("dense", "base"))
    # `save_every` is 2 of 3 steps, so what is left behind is of a run stopped after the second.
    (stopped / "base.safetensors").unlink()
    shutil.rmtree(stopped / "checkpoints" / "base" / "step-0000003")
    train(micro_recipe, stopped, ("base",), True)
    steps = [json.loads(line)["step"] for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 0, 1, 2, 2]
    assert digest(whole, "base") == digest(stopped, "base")


def test_two_processes_train_as_one(run, start_loaded, micro_recipe, tmp_path, monkeypatch):
    def launch(arguments, processes):
        words, log = ["-m", "vico_eval.training", *arguments], tmp_path / "log"
        programs = start_loaded(words, log, processes, TORCHELASTIC_RUN_ID="by torch's launcher")
        assert [program.wait(180) for program in programs] == [0] * processes, log.read_text()

    monkeypatch.setattr("vico_eval.commands.work.train.launch", launch)
    weights = []
    for processes in (1, 2):
        recipe, out = tmp_path / f"{processes}.yaml", tmp_path / str(processes)
        recipe.write_text(yaml.safe_dump(micro_recipe.model_dump() | {"processes": processes}))
        status, _, err = run("train", "tiny", recipe, f"--out={out}", "--stage=dense", "--stage=base")
        assert status == 0, err
        weights.append(load_file(out / "base.safetensors"))
    assert (tmp_path / "log").read_text().count("Written: ") == 1  # by the first of two
    one, two = weights
    for name, value in one.items():
        # Only the order of additions differs; the vision encoder, which is frozen in the first step, is trained too.
        torch.testing.assert_close(two[name], value, atol=1e-6, rtol=1e-5)


def test_processes_share_the_parts_of_a_step_equally(micro_recipe):
    with pytest.raises(ValidationError, match=r"dense.num_parts 2 can't be divided among 3 processes"):
        Recipe.model_validate(micro_recipe.model_dump() | {"processes": 3})


def test_a_misspelt_field_of_a_recipe_is_named(tmp_path):
    content = yaml.safe_load((models_dir() / "vico-tiny" / "recipe.yaml").read_text())
    content["base"]["learning_rat"] = 1
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"base\.learning_rat"):
        load_recipe(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00seed",  # no UTF-8
        b"seed: \x00",
        b"a: " + b"[" * 1000 + b"]" * 1000,
        b"a: " * 1000,
        b"seed: 2024-13-45",
        b"seed: !!timestamp x",
        b"seed: !!bool x",
        b"seed: " + b"9" * 5000,
        b"[1, 2]",
    ],
)
def test_a_file_that_is_no_recipe_is_refused_whatever_is_in_it(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"patch_size": 0}, "patch_size"),
        ({"tile_size": 50}, "not a multiple of 28"),
        ({"vision_heads": 5}, "not a multiple of 5"),
        ({"text_kv_heads": 4}, "not a multiple of 4"),
        ({"text_width": 10**9}, "text_width"),
    ],
)
def test_sizes_that_make_no_model_are_refused(tmp_path, change, place):
    content = yaml.safe_load((models_dir() / "vico-tiny" / "recipe.yaml").read_text())
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content | {"model": change}))
    with pytest.raises(ConfigError, match=place):
        load_recipe(path)


def test_a_missing_recipe_and_an_unknown_stage_are_users_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="basis"):
        parse_stages(["basis"])
    assert parse_stages(["calibration", "base"]) == ("base", "calibration")


def test_a_stage_without_the_one_before_says_so(micro_recipe, tmp_path):
    with pytest.raises(CheckpointError, match="dense"):
        train(micro_recipe, tmp_path, ("base",))
    with pytest.raises(CheckpointError, match="vico-eval train consistency"):
        train(micro_recipe, tmp_path, ("calibration",))
