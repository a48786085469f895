"""Whole runs that are stopped and go on as if they had not been, and what they do not go on with."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, Image, List
from safetensors.torch import load_file, save_file

from vico_eval.errors import CheckpointError, OutputError
from vico_eval.training.config import ConsistencyConfig, RouterConfig
from vico_eval.training.loop.steps import Stopped
from vico_eval.training.saving.files import held
from vico_eval.training.stages import train_consistency, train_router

from .runs import log_of, stop_after, weights_of

ONE_STEP = {"steps": 1, "learning_rate": 1e-3}


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


@pytest.fixture
def stream_settings(consistency_settings, corpus, tmp_path):
    """Settings of a run on the corpus as a stream of four files."""
    rows = [json.loads(line) for line in (corpus.parent / "all.jsonl").read_text().splitlines()]
    roles = {"human": "user", "gpt": "assistant"}
    columns = {
        "messages": [
            [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]] for row in rows
        ],
        "images": [[str(corpus.parent / name) for name in row.get("image", [])] for row in rows],
    }
    whole = Dataset.from_dict(columns).cast_column("images", List(Image()))
    for part in range(4):
        whole.shard(4, part).to_parquet(tmp_path / "stream" / f"{part}.parquet")
    source = {"dataset": str(tmp_path / "stream"), "streaming": True, "shuffle_buffer": 4}
    data = consistency_settings["data"] | {
        "sources": [source],
        "held_out_share": 0,
        "held_out": [{"meta": str(corpus)}],
    }
    return consistency_settings | {"data": data, "warmup": None, "train": {"steps": 10, "learning_rate": 1e-3}}


@pytest.mark.parametrize("data", [{}, {"packed": True}])
def test_a_stopped_run_on_a_stream_goes_on_as_if_it_had_not_been(stream_settings, data, tmp_path):
    settings = stream_settings | {"data": stream_settings["data"] | data}
    whole = ConsistencyConfig.model_validate(settings)
    wanted = weights_of(train_consistency(whole))
    config = whole.model_copy(update={"out": tmp_path / "stopped"})
    stop_after(config.out, 5)
    with pytest.raises(Stopped):
        train_consistency(config)
    folder = train_consistency(config)
    assert log_of(config.out) == log_of(whole.out)
    assert len(set(log_of(whole.out).values())) == 10
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
    assert "the content of trained.safetensors has changed since it was written" in told
    assert "resumes from step 2" in told
    lines = [json.loads(line) for line in (done / "log.jsonl").read_text().splitlines()]
    assert [line["set_aside"] for line in lines if "set_aside" in line]


def test_a_torn_warm_connector_is_written_again(stage_one, done, consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings | {"out": done})
    warm = done / "warm_connector.safetensors"
    warm.write_bytes(warm.read_bytes()[:100])
    train_consistency(config)
    assert warm.read_bytes() == (stage_one / "warm_connector.safetensors").read_bytes()


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
    with pytest.raises(CheckpointError, match=r"since its step 1: .*all\.jsonl has different content\. Restore them"):
        train_consistency(config)
    lines.write_text("".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(CheckpointError, match=r"all\.jsonl had 28 samples and has 27"):
        train_consistency(config)
    lines.write_text(whole)
    shutil.copy(data / "0-0.png", data / "1-0.png")
    with pytest.raises(CheckpointError, match=r"all\.jsonl has different media"):
        train_consistency(config)
    shutil.copy(corpus.parent / "1-0.png", data / "1-0.png")
    weights = load_file(base / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"checkpoint .*base has different content"):
        train_consistency(config)


def test_two_trainings_do_not_share_a_folder(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings)
    with held(config.out), pytest.raises(OutputError, match=rf"Another training .*: process {os.getpid()} on .* since"):
        train_consistency(config)
    assert not (config.out / "checkpoints").exists()


def test_only_the_last_two_checkpoints_and_the_best_stay(consistency_settings):
    settings = consistency_settings | {"warmup": None, "saving": {"every": 1, "keep_best": 1}}
    config = ConsistencyConfig.model_validate(settings)
    train_consistency(config)
    held_out = log_of(config.out, "held_out")
    best = min(held_out, key=held_out.get)[1]
    kept = {int(path.name.removeprefix("step-")) for path in (config.out / "checkpoints" / "train").glob("step-*")}
    assert kept == {best, 3, 4}
