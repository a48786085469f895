"""Runs that compute numbers that are none stop, name where, and write nothing of it."""

import json
import math
import shutil

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from vico_eval.training.config import ConsistencyConfig, RouterConfig
from vico_eval.training.loop.finite import NotFinite, as_json
from vico_eval.training.models.pair import PolicyAndReference
from vico_eval.training.router import RouterInTraining
from vico_eval.training.stages import train_consistency, train_router


def strict(path):
    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def steps_logged(out):
    return [line["step"] for line in strict(out / "log.jsonl") if "learning_rate" in line]


def kept(out, phase="train"):
    return sorted(path.name for path in (out / "checkpoints" / phase).glob("step-*/progress.json"))


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_stage_one_stops_at_the_first_loss_that_is_no_number(consistency_settings, monkeypatch, odd):
    """The fourth micro-batch of two samples is in step 1, and a checkpoint is written behind every step."""
    config = ConsistencyConfig.model_validate(consistency_settings | {"warmup": None, "saving": {"every": 1}})
    keys = []
    forward = PolicyAndReference.forward

    def compute(self, batch, routings):
        result = forward(self, batch, routings)
        if self.training:
            keys.append(batch.samples[0].key)
        if len(keys) == 4 and self.training:
            result = result._replace(kl=result.kl * torch.tensor([odd, 1]))
        return result

    monkeypatch.setattr(PolicyAndReference, "forward", compute)
    with pytest.raises(NotFinite, match="In step 1 of train, the loss of") as told:
        train_consistency(config)
    assert f"the loss of {keys[3]} is not finite" in str(told.value)
    assert "the checkpoint of step 1 is kept" in str(told.value)
    assert steps_logged(config.out) == [0]
    assert [path.name for path in (config.out / "checkpoints" / "train").iterdir()] == ["step-0000001"]
    trained = load_file(config.out / "checkpoints" / "train" / "step-0000001" / "trained.safetensors")
    assert all(value.isfinite().all() for value in trained.values())
    assert not (config.out / "model").exists()


def test_a_gradient_that_is_no_number_stops_a_run_and_names_the_samples(consistency_settings, monkeypatch):
    config = ConsistencyConfig.model_validate(consistency_settings | {"warmup": None})
    backward = Accelerator.backward

    def spoil(self, loss):
        backward(self, loss)
        for model in self._models:
            gradient = next(value.grad for value in model.parameters() if value.grad is not None)
            gradient.view(-1)[0] = math.nan

    monkeypatch.setattr(Accelerator, "backward", spoil)
    with pytest.raises(
        NotFinite, match=r"step 0 of train, the gradient of .*all\.jsonl:.*: nan.*no earlier checkpoint"
    ):
        train_consistency(config)


def test_weights_that_are_no_numbers_are_not_saved(consistency_settings):
    """The only step's loss and gradient are fine; its learning rate is not."""
    train = {"steps": 1, "learning_rate": 3e38, "weight_decay": 0}
    config = ConsistencyConfig.model_validate(
        consistency_settings | {"warmup": None, "train": train | {"warmup_steps": 0, "betas": [0, 0]}}
    )
    with pytest.raises(NotFinite):
        train_consistency(config)
    assert not kept(config.out)
    assert not (config.out / "model").exists()


@pytest.mark.parametrize("what", ["ratio", "log_p"])
def test_stage_two_stops_at_a_ratio_or_a_score_that_is_no_number(router_settings, monkeypatch, what):
    config = RouterConfig.model_validate(router_settings)
    forward = RouterInTraining.forward

    def compute(self, batch, chosen):
        found = forward(self, batch, chosen)
        return found._replace(**{what: getattr(found, what) * math.nan})

    monkeypatch.setattr(RouterInTraining, "forward", compute)
    name = {"ratio": "loss ratio r", "log_p": "router's score"}[what]
    with pytest.raises(NotFinite, match=f"In step 0 of tile_router, the {name} of"):
        train_router(config)
    assert not kept(config.out, "tile_router")
    assert not (config.out / "log.jsonl").exists()


def test_a_model_whose_weights_are_no_numbers_is_not_trained(consistency_settings, base_checkpoint, tmp_path):
    shutil.copytree(base_checkpoint, tmp_path / "odd")
    file = tmp_path / "odd" / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "layers.0.mlp" in name and "language_model" in name)
    weights[name] = torch.full_like(weights[name], math.nan)
    save_file(weights, file, metadata={"format": "pt"})
    config = ConsistencyConfig.model_validate(consistency_settings | {"checkpoint": str(tmp_path / "odd")})
    with pytest.raises(NotFinite, match="In step 0 of warmup"):
        train_consistency(config)


def test_what_is_unknown_is_null_in_json():
    assert as_json({"loss": math.nan, "all": [1, (math.nan,)]}) == '{"loss": null, "all": [1, [null]]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(math.inf)
