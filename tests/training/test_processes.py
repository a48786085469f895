"""What processes that train together have to agree in."""

import os
import signal
import stat
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from accelerate.utils import DistributedType
from torch.nn.parallel import DistributedDataParallel

from vico_eval.commands.work.train_vico import train
from vico_eval.training.config import ConsistencyConfig
from vico_eval.training.loop.accelerated import configure_deepspeed, share_only_trained
from vico_eval.training.models.opening import halve_reference
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy

from .runs import write_config


def test_deepspeed_is_told_what_the_run_decides(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings)
    told = {"train_batch_size": "auto", "gradient_clipping": 7.0}
    accelerator = SimpleNamespace(
        distributed_type=DistributedType.DEEPSPEED,
        gradient_accumulation_steps=2,
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=told)),
    )
    configure_deepspeed(accelerator, config, config.train)
    assert told == {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0,
    }


def test_a_reference_of_eight_bits_is_not_sent_around(micro_model):
    reference = frozen_copy(micro_model, train_vision=False)
    halve_reference(reference)
    micro_model.requires_grad_(False)
    pair = PolicyAndReference(micro_model, reference)
    micro_model.connector_low.requires_grad_(True)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        share_only_trained(pair)
        DistributedDataParallel(pair)
    finally:
        dist.destroy_process_group()


def test_who_stops_the_command_stops_the_run(consistency_settings, tmp_path, monkeypatch):
    """Also where the launcher does not pass a signal on."""
    started, saved, launcher = tmp_path / "started", tmp_path / "saved", tmp_path / "launcher"
    run = f"trap 'touch {saved}; exit' TERM; touch {started}; while :; do sleep 0.05; done"
    launcher.write_text(f'#!/bin/sh\nsh -c "{run}" &\nwait\n')
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(launcher))

    def interrupt():
        while not started.exists():
            time.sleep(0.01)
        # The launcher may be further than this process, which knows of it only when `Popen` has returned.
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    # A process that was started in the background ignores Ctrl-C until it is told otherwise.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train("consistency", write_config(tmp_path, consistency_settings), 2, None)
    finally:
        signal.signal(signal.SIGINT, earlier)
    deadline = time.monotonic() + 10
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert saved.exists()
