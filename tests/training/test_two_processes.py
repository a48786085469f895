"""Runs of two processes equal those of one."""

import json
import signal
from pathlib import Path

import pytest
import torch

from vico_eval.commands.work.train_vico import train

from .runs import finish, log_of, wait_for_checkpoint, weights_of, write_config

HERE = Path(__file__).parent


def test_a_killed_run_that_two_processes_finish_equals_one(start_loaded, stage_one, consistency_settings, tmp_path):
    out = tmp_path / "shared"
    path = write_config(tmp_path, consistency_settings, out=out)
    (first,) = start_loaded(["-m", "vico_eval.training", "consistency", path], tmp_path / "first.log")
    wait_for_checkpoint(out, first, tmp_path / "first.log")
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


def test_a_loss_that_is_no_number_on_one_process_stops_all(start_loaded, consistency_settings, tmp_path):
    settings = consistency_settings | {"warmup": None}
    log, config = tmp_path / "log", write_config(tmp_path, settings)
    said = finish(start_loaded([HERE / "odd_rank.py", config], log, processes=2), log)
    first, second = (line for line in said.splitlines() if line.startswith("stopped:"))
    assert first == second
    assert "In step 0 of train, the loss of" in first
    assert not (settings["out"] / "log.jsonl").exists()
