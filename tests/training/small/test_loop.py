"""The loop as the small models use it: schedules, stops at numbers that are none, and where a stage goes on."""

import os
import signal

import pytest
import torch
from torch import nn

from vico_eval.errors import CheckpointError
from vico_eval.training.loop.finite import NotFinite
from vico_eval.training.loop.steps import Stopped
from vico_eval.training.small.data import parts
from vico_eval.training.small.loop import ParameterGroup, fit, learning_rate_share, opened, training_in
from vico_eval.training.small.recipe import Schedule

SCHEDULE = Schedule(steps=6, learning_rate=0.01, warmup_steps=0, save_every=1, num_parts=1)


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Batches in this process: a worker's start-up is longer than these stages."""
    monkeypatch.setattr(parts, "WORKERS", 0)


def one_part(step):
    return [(0, 0)]


def run(folder, module=None, factors=None, resume=True, stop_in=None, **changes):
    """Steps on one number; `factors[step]` multiplies the loss."""
    module = nn.Linear(2, 1) if module is None else module
    seen = []

    def loss(step, part):
        seen.append(step)
        if step == stop_in:
            os.kill(os.getpid(), signal.SIGTERM)
        value = sum(parameter.square().sum() for parameter in module.parameters())
        return {"loss": value * (factors or {}).get(step, 1.0)}

    settings = SCHEDULE.model_copy(update=changes)
    with opened(folder) as accelerator:
        training = training_in(folder, accelerator, 0, {})
        fit(training, "small", settings, [ParameterGroup("only", module)], one_part, loss, resume=resume)
    return seen


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_stage_stops_at_a_loss_that_is_no_number_and_keeps_its_checkpoint(tmp_path, odd):
    with pytest.raises(NotFinite, match=r"In step 3 of small, the loss of part 0 is not finite.*step 3 is kept"):
        run(tmp_path, factors={3: odd})
    module = nn.Linear(2, 1)
    assert run(tmp_path, module) == [3, 4, 5]
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_a_stage_does_not_leave_weights_that_are_no_numbers(tmp_path):
    with pytest.raises(NotFinite, match=r"step 0 of small, .*gradient of part 0"):
        run(tmp_path, factors={0: 3e38}, module=nn.Linear(2, 1).requires_grad_(False).double().float(), steps=1)


@pytest.mark.parametrize("tear", [lambda content: content[:-8], lambda content: bytes(len(content))])
def test_a_torn_checkpoint_is_set_aside_and_the_one_before_it_taken(tmp_path, tear, capfd):
    with pytest.raises(NotFinite):
        run(tmp_path, factors={5: float("nan")})  # saves behind steps 1 to 5
    folder = tmp_path / "checkpoints" / "small"
    last = folder / "step-0000005" / "trained.safetensors"
    last.write_bytes(tear(last.read_bytes()))
    assert run(tmp_path, steps=6) == [4, 5]
    assert "resumes from step 4" in " ".join(capfd.readouterr().err.split())
    assert list(folder.glob("torn-step-0000005-*"))
    for file in folder.glob("step-*/trained.safetensors"):
        file.write_bytes(tear(file.read_bytes()))
    with pytest.raises(CheckpointError, match="remove that folder to start over"):
        run(tmp_path)
    assert run(tmp_path, resume=False) == [0, 1, 2, 3, 4, 5]


def test_what_is_finished_is_not_repeated(tmp_path):
    one, again = nn.Linear(2, 1), nn.Linear(2, 1)
    assert run(tmp_path, one) == [0, 1, 2, 3, 4, 5]
    assert run(tmp_path, again) == []
    assert torch.equal(one.weight, again.weight)


def test_a_stopped_stage_has_saved_and_says_how_it_goes_on(tmp_path):
    with pytest.raises(
        Stopped, match=r"after step 2 of 6 of small and saved a checkpoint\. Repeat the command with --resume"
    ):
        run(tmp_path, stop_in=1, save_every=6)
    assert run(tmp_path, save_every=6) == [2, 3, 4, 5]


def test_resuming_with_other_settings_or_modules_is_refused(tmp_path):
    run(tmp_path, steps=2)
    with pytest.raises(CheckpointError, match="another small"):
        run(tmp_path, steps=3)
    with pytest.raises(CheckpointError, match="other weights"):
        run(tmp_path, nn.Linear(2, 1, bias=False), steps=2)


def test_the_schedule_rises_then_falls_to_its_share():
    schedule = Schedule(steps=110, learning_rate=1.0, warmup_steps=10, final_share=0.1)
    assert learning_rate_share(schedule, 0) == pytest.approx(0.1)
    assert learning_rate_share(schedule, 9) == pytest.approx(1.0)
    assert learning_rate_share(schedule, 60) == pytest.approx(0.55)  # half of the cosine: (1 + 0.1) / 2
    assert learning_rate_share(schedule, 110) == pytest.approx(0.1)
