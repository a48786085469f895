"""The built-in small model's way from its recipe to its checkpoints, with the committed configurations cut short."""

import json

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.paths import models_dir
from vico_eval.training.config import ConsistencyConfig, RouterConfig
from vico_eval.training.small.data import parts as data
from vico_eval.training.small.vico_tiny.train import train
from vico_eval.training.stages import train_consistency, train_router

from .conftest import forget_accelerate

SHORT = {"steps": 2, "warmup_steps": 1}


def short(name, folder):
    """A committed configuration for a few samples of the corpus in `folder`."""
    text = (models_dir() / "vico-tiny" / f"{name}.yaml").read_text().replace("runs/train-tiny", str(folder))
    settings = yaml.safe_load(text)
    for phase in {"warmup", "train"} & set(settings):
        settings[phase] |= SHORT
    settings["data"] |= {"held_out_share": 0.3}
    return settings | {"global_batch": 4, "micro_batch": 2, "held_out_samples": 4}


def test_the_small_model_is_made_by_its_recipe_and_configurations(micro_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "WORKERS", 0)  # a worker's start-up is longer than these stages
    train(micro_recipe, tmp_path, ("dense", "base", "corpus"))
    forget_accelerate()
    train_consistency(ConsistencyConfig.model_validate(short("consistency", tmp_path)))
    for name in ("router", "image_router"):
        forget_accelerate()
        train_router(RouterConfig.model_validate(short(name, tmp_path) | {"burn_in": 2}))
    assert not list(tmp_path.glob("*/skipped.*"))  # every sample, videos too
    forget_accelerate()
    train(micro_recipe, tmp_path, ("calibration",))

    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rows = {entry["validation"]: entry["compressed_tile_ratio"] for entry in log if "validation" in entry}
    assert rows["vanilla"] == 0
    # The threshold is chosen on other pictures: three standard errors of these 62 tiles.
    assert rows["vico"] == pytest.approx(0.6, abs=0.19)
    assert rows["all compress"] == 1
    model = VicoInternVL.from_pretrained(tmp_path / "vico-tiny")
    assert model.dtype == torch.bfloat16
    router = model.config.parts["router"]
    assert router["relative_threshold"] is None
    assert 0 < router["absolute_threshold"] < 1
    assert 0 < router["image_threshold"] < 1
    base = VicoInternVL.from_pretrained(tmp_path / "vico-tiny-base")
    assert base.connector_low is None
    assert base.router is None
    assert AutoTokenizer.from_pretrained(tmp_path / "vico-tiny").eos_token == "<|im_end|>"
