"""Whole runs of both stages: what they leave."""

import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.models.internvl import InternVLVisionModel

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.training.config import ConsistencyConfig, RouterConfig
from vico_eval.training.data.skips import SkippedTooMany
from vico_eval.training.models.pair import PolicyAndReference
from vico_eval.training.stages import train_consistency, train_router

from .conftest import forget_accelerate
from .runs import log_of, weights_of

ONE_STEP = {"steps": 1, "learning_rate": 1e-3}
ADAPTERS = {"lora": {"rank": 2, "alpha": 4}, "train_vision": False}


def test_the_stages_make_a_model_that_routes(stage_one, router_config, base_checkpoint):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (stage_one / "model" / name).read_bytes() == (base_checkpoint / name).read_bytes()
    policy = load_model(find_checkpoint(str(stage_one / "model")))
    base = load_model(find_checkpoint(str(base_checkpoint)))
    assert policy.connector_low is not None
    assert policy.router is None
    pairs = [
        (name, value, dict(base.named_parameters())[name])
        for name, value in policy.named_parameters()
        if "low" not in name
    ]
    changed = {name.split(".")[0] for name, value, other in pairs if not torch.equal(value, other)}
    assert changed == {"connector_high", "language_model", "vision_tower"}
    report = json.loads((stage_one / "held_out.json").read_text())["consistency"]
    assert [line["share"] for line in report] == [0, 0.25, 0.5, 0.75, 1]
    finished = load_model(find_checkpoint(str(train_router(router_config))))
    assert finished.router is not None
    for name, value in policy.named_parameters():
        assert torch.equal(value, dict(finished.named_parameters())[name])


def test_everything_is_shown(stage_one, router_config):
    train_router(router_config)
    lines = [json.loads(line) for line in (router_config.out / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "learning_rate" in line]
    assert {"ratio", "tau", "tokens_per_s"} <= steps[0].keys()
    assert {"loss", "accuracy", "keep_share"} <= steps[-1].keys()
    assert any("ratios" in line and "p50" in line["ratios"] for line in lines)
    first = json.loads((stage_one / "log.jsonl").read_text().splitlines()[0])
    assert any(name.startswith("kl_at_") for name in first)
    assert list(router_config.out.rglob("events.out.tfevents*"))


def test_trackers_see_steps_that_never_go_back(stage_one):
    """Or wandb drops them: two steps of warm-up, then four."""
    (folder,) = {path.parent for path in stage_one.glob("vico-eval/events.*")}
    events = EventAccumulator(str(folder)).Reload()
    steps = [[event.step for event in events.Scalars(f"{phase}/loss")] for phase in ("warmup", "train")]
    assert steps == [[0, 1], [2, 3, 4, 5]]


def test_the_image_router_is_one_of_its_own(router_settings):
    config = RouterConfig.model_validate(router_settings | {"level": "image"})
    finished = load_model(find_checkpoint(str(train_router(config))))
    assert finished.router is None
    assert finished.image_router is not None


def test_warming_up_changes_the_low_connector_alone(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings)
    train_consistency(config)
    warm = load_file(config.out / "warm_connector.safetensors")
    (checkpoint,) = (config.out / "checkpoints" / "warmup").glob("step-*")
    trained = load_file(checkpoint / "trained.safetensors")
    assert {name.removeprefix("policy.connector_low.") for name in trained} == set(warm)
    assert log_of(config.out).keys() == {("warmup", 0), ("warmup", 1), *(("train", step) for step in range(4))}


def test_stage_two_encodes_tiles_once_behind_a_frozen_encoder(consistency_settings, router_settings, monkeypatch):
    changes = {"train_vision": False, "warmup": None, "train": ONE_STEP}
    policy = train_consistency(ConsistencyConfig.model_validate(consistency_settings | changes))
    forget_accelerate()
    calls = Counter()
    for part in (InternVLVisionModel, PolicyAndReference):

        def forward(self, *arguments, part=part, forward=part.forward, **named):
            calls[part] += 1
            return forward(self, *arguments, **named)

        monkeypatch.setattr(part, "forward", forward)
    train_router(RouterConfig.model_validate(router_settings | {"policy": str(policy)}))
    assert calls[InternVLVisionModel] == calls[PolicyAndReference] > 0


def test_adapters_are_merged_into_the_finished_model(consistency_settings, base_checkpoint):
    config = ConsistencyConfig.model_validate(consistency_settings | ADAPTERS | {"warmup": None})
    folder = train_consistency(config)
    weights, base = weights_of(folder), weights_of(base_checkpoint)
    changed = {name for name, value in base.items() if not torch.equal(value.float(), weights[name].float())}
    assert changed
    assert all("language_model" in name and "proj" in name for name in changed)
    assert not any("lora" in name for name in weights)


def test_corrupt_samples_are_skipped_and_too_many_end_the_run_behind_its_last_step(
    consistency_settings, corpus, tmp_path
):
    lines = (corpus.parent / "all.jsonl").read_text().splitlines()
    broken = [line.replace(".png", "-missing.png") if number % 3 == 0 else line for number, line in enumerate(lines)]
    (tmp_path / "broken.jsonl").write_text("\n".join(broken))
    data = consistency_settings["data"] | {
        "sources": [{"jsonl": str(tmp_path / "broken.jsonl"), "root": str(corpus.parent)}]
    }
    config = ConsistencyConfig.model_validate(consistency_settings | {"warmup": None, "data": data})
    with pytest.raises(SkippedTooMany, match="were skipped"):
        train_consistency(config)
    assert (config.out / "model" / "model.safetensors").exists()
    assert len(log_of(config.out)) == 4
    skipped = [json.loads(line) for line in (config.out / "skipped.rank0.jsonl").read_text().splitlines()]
    assert {"step", "key", "kind", "reason"} == set(skipped[0])


@pytest.mark.parametrize("changes", [{}, ADAPTERS, {"reference": "int8"}, {"train_vision": False}])
def test_stage_one_in_bfloat16(consistency_settings, changes):
    config = ConsistencyConfig.model_validate(consistency_settings | {"precision": "bf16"} | changes)
    weights = weights_of(train_consistency(config))
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    (checkpoint,) = (config.out / "checkpoints" / "train").glob("step-*4")
    trained = load_file(checkpoint / "trained.safetensors")
    assert {value.dtype for value in trained.values()} == {torch.float32}
    parts = {name.split(".")[1] for name in trained}
    assert ("vision_tower" in parts) == changes.get("train_vision", True)
    assert ("connector_high" in parts) == ("lora" not in changes)


def test_stage_two_in_bfloat16(router_settings):
    config = RouterConfig.model_validate(router_settings | {"precision": "bf16", "reference": "int8"})
    assert {value.dtype for value in weights_of(train_router(config)).values()} == {torch.bfloat16}


def test_a_batch_that_can_not_be_shared_is_refused(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings | {"global_batch": 5})
    with pytest.raises(ConfigError, match="multiple of micro_batch x processes, 2 x 1"):
        train_consistency(config)


def test_stage_two_needs_what_stage_one_made(router_settings, base_checkpoint):
    config = RouterConfig.model_validate(router_settings | {"policy": str(base_checkpoint)})
    with pytest.raises(CheckpointError, match="no low connector"):
        train_router(config)


def test_keys_that_are_not_read_are_named_once(consistency_settings, corpus, capfd):
    lines = [json.loads(line) | {"mood": "good"} for line in (corpus.parent / "all.jsonl").read_text().splitlines()]
    path = consistency_settings["out"].with_name("moody.jsonl")
    path.write_text("\n".join(map(json.dumps, lines)))
    data = consistency_settings["data"] | {"sources": [{"jsonl": str(path), "root": str(corpus.parent)}]}
    config = ConsistencyConfig.model_validate(
        consistency_settings | {"data": data, "warmup": ONE_STEP, "train": ONE_STEP}
    )
    train_consistency(config)
    assert "mood in 28 of 28 samples." in " ".join(capfd.readouterr().err.split())
    logged = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert [line["not_read"] for line in logged if "not_read" in line] == [{"mood": 28}]
