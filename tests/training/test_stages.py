"""Whole runs of both stages: what they leave, and that stopping, resuming and sharing change nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.models.internvl import InternVLVisionModel

from vico_eval.errors import CheckpointError, ConfigError, OutputError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.training.config import ConsistencyConfig, RouterConfig
from vico_eval.training.data.skips import SkippedTooMany
from vico_eval.training.loop.steps import Stopped
from vico_eval.training.models.pair import PolicyAndReference
from vico_eval.training.saving.files import held
from vico_eval.training.stages import train_consistency, train_router

from .conftest import forget_accelerate

ONE_STEP = {"steps": 1, "learning_rate": 1e-3}
ADAPTERS = {"lora": {"rank": 2, "alpha": 4}, "train_vision": False}


def log_of(out, name="loss"):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {(line["phase"], line["step"]): line[name] for line in lines if name in line and "phase" in line}


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def write_config(folder, settings, **changes):
    values = {**settings, **changes}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({name: str(value) if name == "out" else value for name, value in values.items()}))
    return path


def launch(*arguments, processes=1, environment=None):
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += map(str, arguments)
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


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


def stop_after(out, steps):
    """SIGTERM to this process when the run has logged so many steps."""

    def watch():
        log = out / "log.jsonl"
        while not log.exists() or log.read_text().count("learning_rate") < steps:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(stage_one, consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings)
    stop_after(config.out, 4)
    with pytest.raises(Stopped, match="Repeat the command"):
        train_consistency(config)
    assert 4 <= len(log_of(config.out)) < 6
    folder = train_consistency(config)
    assert log_of(config.out) == log_of(stage_one)
    wanted = weights_of(stage_one / "model")
    assert all(torch.equal(value, wanted[name]) for name, value in weights_of(folder).items())


def test_a_stopped_run_does_not_wait_for_its_held_out_loss(consistency_settings):
    changes = {"warmup": None, "train": {"steps": 200, "learning_rate": 1e-3}, "saving": {"every": 500}}
    config = ConsistencyConfig.model_validate(consistency_settings | changes)
    stop_after(config.out, 1)
    with pytest.raises(Stopped):
        train_consistency(config)
    assert not log_of(config.out, "held_out")
    (progress,) = (config.out / "checkpoints" / "train").glob("*/progress.json")
    assert json.loads(progress.read_text())["held_out"] is None


def test_a_warm_connector_of_another_run_is_not_taken(consistency_settings, stage_one):
    config = ConsistencyConfig.model_validate(
        consistency_settings | {"warmup": {"steps": 200, "learning_rate": 1e-3}, "saving": {"every": 500}}
    )
    config.out.mkdir()
    shutil.copy(stage_one / "warm_connector.safetensors", config.out)
    stop_after(config.out, 1)
    with pytest.raises(Stopped, match="of warmup"):
        train_consistency(config)
    assert not (config.out / "warm_connector.safetensors").exists()


def test_a_run_goes_on_behind_a_step_whatever_accelerate_counted(stage_one, consistency_settings, monkeypatch):
    """Of more processes each has fewer micro-batches a step, so the number of all of them may be odd here."""
    config = ConsistencyConfig.model_validate(consistency_settings)
    stop_after(config.out, 3)
    with pytest.raises(Stopped):
        train_consistency(config)
    load_state = Accelerator.load_state

    def load(accelerator, folder):
        load_state(accelerator, folder)
        accelerator.step = 1

    monkeypatch.setattr(Accelerator, "load_state", load)
    train_consistency(config)
    assert log_of(config.out) == log_of(stage_one)


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


def test_stage_two_goes_on_with_its_window(router_settings, tmp_path):
    settings = router_settings | {"train": {"steps": 6, "learning_rate": 1e-3}}
    config = RouterConfig.model_validate(settings)
    folder = train_router(config)
    again = config.model_copy(update={"out": tmp_path / "again"})
    stop_after(again.out, 3)
    with pytest.raises(Stopped):
        train_router(again)
    wanted = weights_of(folder)
    assert all(torch.equal(value, wanted[name]) for name, value in weights_of(train_router(again)).items())
    assert log_of(again.out, "keep_share") == log_of(config.out, "keep_share")


def test_a_killed_run_that_two_processes_finish_equals_one(stage_one, consistency_settings, tmp_path):
    out = tmp_path / "shared"
    path = write_config(tmp_path, consistency_settings, out=out)
    first = launch("-m", "vico_eval.training", "consistency", path)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/train/*/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    command = "from vico_eval.cli import main; main()"
    second = launch("-c", command, "train", "consistency", path, "--processes", 2)
    output, _ = second.communicate(timeout=180)
    assert second.returncode == 0, output
    counted = [
        json.loads(path.read_text())["skips"]["num_samples"] for path in out.glob("checkpoints/train/*4/state.*")
    ]
    assert len(counted) == 2
    assert sum(counted) <= 16  # nothing twice
    wanted, found = log_of(stage_one), log_of(out)
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-7)  # of a KL of 2e-4
    one, other = weights_of(stage_one / "model"), weights_of(out / "model")
    for name, value in other.items():
        torch.testing.assert_close(value, one[name], atol=2e-5, rtol=2e-3)


def test_adapters_are_merged_into_the_finished_model(consistency_settings, base_checkpoint):
    config = ConsistencyConfig.model_validate(consistency_settings | ADAPTERS | {"warmup": None})
    folder = train_consistency(config)
    weights, base = weights_of(folder), weights_of(base_checkpoint)
    changed = {name for name, value in base.items() if not torch.equal(value.float(), weights[name].float())}
    assert changed
    assert all("language_model" in name and "proj" in name for name in changed)
    assert not any("lora" in name for name in weights)


def test_only_the_last_two_checkpoints_and_the_best_stay(consistency_settings):
    settings = consistency_settings | {"warmup": None, "saving": {"every": 1, "keep_best": 1}}
    config = ConsistencyConfig.model_validate(settings)
    train_consistency(config)
    held_out = log_of(config.out, "held_out")
    best = min(held_out, key=held_out.get)[1]
    kept = {int(path.name.removeprefix("step-")) for path in (config.out / "checkpoints" / "train").glob("step-*")}
    assert kept == {best, 3, 4}


def test_checkpoints_of_another_configuration_are_refused(stage_one, consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings | {"out": stage_one, "seed": 9})
    with pytest.raises(CheckpointError, match="another seed"):
        train_consistency(config)


def test_the_folder_of_another_training_is_refused(stage_one, router_settings):
    model = stage_one / "model" / "model.safetensors"
    before = model.read_bytes()
    with pytest.raises(CheckpointError, match=r"another training \(train, warmup\).* Give this run another `out`"):
        train_router(RouterConfig.model_validate(router_settings | {"out": stage_one}))
    assert model.read_bytes() == before


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


def test_a_loss_that_is_no_number_on_one_process_stops_all(consistency_settings, tmp_path):
    settings = consistency_settings | {"warmup": None}
    process = launch(Path(__file__).with_name("odd_rank.py"), write_config(tmp_path, settings), processes=2)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    first, second = (line for line in output.splitlines() if line.startswith("stopped:"))
    assert first == second
    assert "In step 0 of train: the loss of" in first
    assert not (settings["out"] / "log.jsonl").exists()


@pytest.fixture
def done(stage_one, tmp_path):
    """`out` of a finished run of stage 1, to be changed."""
    return Path(shutil.copytree(stage_one, tmp_path / "done"))


def test_a_torn_last_checkpoint_is_set_aside_and_the_one_before_taken(stage_one, done, consistency_settings, capfd):
    config = ConsistencyConfig.model_validate(consistency_settings | {"out": done})
    file = done / "checkpoints" / "train" / "step-0000004" / "trained.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)
    folder = train_consistency(config)
    wanted = weights_of(stage_one / "model")
    assert all(torch.equal(value, wanted[name]) for name, value in weights_of(folder).items())
    assert {path.name for path in file.parents[1].iterdir()} == {
        "step-0000002",
        "step-0000004",
        "torn-step-0000004-1",
    }
    told = " ".join(capfd.readouterr().err.split())
    assert "trained.safetensors has other content than was written" in told
    assert "goes on from step 2" in told
    lines = [json.loads(line) for line in (done / "log.jsonl").read_text().splitlines()]
    assert [line["set_aside"] for line in lines if "set_aside" in line]


def test_a_torn_warm_connector_is_written_again(stage_one, done, consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings | {"out": done})
    warm = done / "warm_connector.safetensors"
    warm.write_bytes(warm.read_bytes()[:100])
    train_consistency(config)
    assert warm.read_bytes() == (stage_one / "warm_connector.safetensors").read_bytes()


def test_a_run_does_not_go_on_with_other_data_or_another_base_model(consistency_settings, corpus, tmp_path):
    data = Path(shutil.copytree(corpus.parent, tmp_path / "data"))
    lines = data / "all.jsonl"
    source = {"jsonl": str(lines), "root": str(data)}
    base = Path(shutil.copytree(consistency_settings["checkpoint"], tmp_path / "base"))
    changes = {"checkpoint": str(base), "data": consistency_settings["data"] | {"sources": [source]}}
    config = ConsistencyConfig.model_validate(consistency_settings | changes | {"warmup": None, "train": ONE_STEP})
    train_consistency(config)
    train_consistency(config)  # nothing has changed

    whole = lines.read_text()
    lines.write_text(whole.replace('"gpt"', '"gpt" '))
    with pytest.raises(CheckpointError, match=r"since its step 1: .*all\.jsonl has other content\. Put it back"):
        train_consistency(config)
    lines.write_text("".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(CheckpointError, match=r"all\.jsonl had 28 samples and has 27"):
        train_consistency(config)
    lines.write_text(whole)
    shutil.copy(data / "0-0.png", data / "1-0.png")
    with pytest.raises(CheckpointError, match=r"all\.jsonl has other pictures"):
        train_consistency(config)
    shutil.copy(corpus.parent / "1-0.png", data / "1-0.png")
    weights = load_file(base / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"checkpoint .*base has other content"):
        train_consistency(config)


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


def test_two_trainings_do_not_share_a_folder(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings)
    with held(config.out), pytest.raises(OutputError, match=rf"Another training .*: process {os.getpid()} on .* since"):
        train_consistency(config)
    assert not (config.out / "checkpoints").exists()
