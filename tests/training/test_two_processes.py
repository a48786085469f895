"""Runs of two processes equal those of one."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch

from vico_eval.commands.train_vico import train

from .runs import log_of, weights_of, write_config

HERE = Path(__file__).parent


def finish(programs, log):
    """What they say at their end."""
    statuses = [program.wait(180) for program in programs]
    assert statuses == [0] * len(programs), log.read_text()
    return log.read_text()


def test_a_killed_run_that_two_processes_finish_equals_one(start_loaded, stage_one, consistency_settings, tmp_path):
    out = tmp_path / "shared"
    path = write_config(tmp_path, consistency_settings, out=out)
    (first,) = start_loaded(["-m", "vico_eval.training", "consistency", path], tmp_path / "first.log")
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/train/*/progress.json")):
        assert first.poll() is None, (tmp_path / "first.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    assert first.wait(60) == -signal.SIGKILL
    train("consistency", path, processes=2, accelerate_config=None)  # through torch's launcher
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


def test_weights_in_shards_give_the_same_losses_and_gradients(start_loaded, consistency_settings, tmp_path):
    log, config = tmp_path / "log", write_config(tmp_path, consistency_settings)
    said = finish(start_loaded([HERE / "sharded.py", config], log, processes=2), log)
    assert said.count("alike") == 2


def test_a_loss_that_is_no_number_on_one_process_stops_all(start_loaded, consistency_settings, tmp_path):
    settings = consistency_settings | {"warmup": None}
    log, config = tmp_path / "log", write_config(tmp_path, settings)
    said = finish(start_loaded([HERE / "odd_rank.py", config], log, processes=2), log)
    first, second = (line for line in said.splitlines() if line.startswith("stopped:"))
    assert first == second
    assert "In step 0 of train: the loss of" in first
    assert not (settings["out"] / "log.jsonl").exists()
