"""The loop that both stages share, on accelerate: steps, gradients, and stopping in good order."""

from __future__ import annotations

import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from vico_eval.errors import UserError
from vico_eval.training.data.batches import collate
from vico_eval.training.data.stream import StepBatch
from vico_eval.training.loop.accelerated import SHARDED, configure_deepspeed, share_only_trained
from vico_eval.training.loop.health import Health, anywhere
from vico_eval.training.loop.phase import Phase, Resumable, Run
from vico_eval.training.loop.schedule import make_optimizer, make_scheduler
from vico_eval.training.saving.resume import checkpoints_of, load_checkpoint, newest, save_checkpoint

SKIPS_SAY_SOMETHING = 1000
"""Samples of every process before which a run does not end for the share of skipped ones among them."""


class Stopped(UserError):
    """The run was asked to stop, and saved."""


def run_phase(run: Run, phase: Phase) -> nn.Module:
    """Train a phase from its newest checkpoint to its end; every process calls this alike.

    Returns:
        The trained model, as accelerate wrapped it, in evaluation mode.

    Raises:
        Stopped: SIGTERM or Ctrl-C; a checkpoint of the last finished step is there.
        NotFinite: a loss, gradient, loss ratio or weight is no number; the last checkpoint is of before.
        CheckpointError: the folder has checkpoints of another configuration.
        UserError: too many samples were skipped.
    """
    accelerator, config = run.accelerator, run.config
    checkpoints = checkpoints_of(config, phase.name, run.inputs)
    done = newest(accelerator, checkpoints, run.watch)
    optimizer = make_optimizer(phase.model.parameters(), phase.optimizer)
    scheduler = make_scheduler(optimizer, phase.optimizer)
    accelerator.free_memory()
    share_only_trained(phase.model)
    configure_deepspeed(accelerator, config, phase.optimizer)
    prepared: tuple[nn.Module, Any] = accelerator.prepare(phase.model, optimizer)
    model, wrapped = prepared
    state: dict[str, Resumable] = {"schedule": scheduler, "skips": run.skips, **phase.resumables}
    first, last = 0, phase.optimizer.steps
    if done is not None:
        load_checkpoint(accelerator, checkpoints.path(done.step), state)
        first = done.step
    with (
        run.watch.phase(phase.name, first, last, phase.steps_before),
        _stop_signals() as stop,
        run.batches(first) as batches,
    ):
        for step in range(first, last):
            began = time.monotonic()
            batch = next(batches)
            run.skips.count(batch)
            health = _train_step(run, phase, model, wrapped, batch)
            stopping, is_ill = anywhere(accelerator, [stop.requested, health.is_ill()])
            if is_ill:
                health.stop(f"In step {step} of {phase.name}", checkpoints.kept())
            run.watch.step(step, float(scheduler.get_last_lr()[0]), time.monotonic() - began)
            scheduler.step()
            done_now = step + 1
            if stopping or done_now % config.saving.every == 0 or done_now == last:
                # Whoever stops a run does not wait long for it.
                measure = not stopping or done_now == last
                save_checkpoint(run, phase, model, checkpoints, done_now, state, measure=measure)
                check_skips(run, at_least=SKIPS_SAY_SOMETHING)
            if stopping and done_now < last:
                raise Stopped(
                    f"Stopped behind step {done_now} of {last} of {phase.name}, and saved. Repeat the command to go on."
                )
    model.eval()
    return model


def check_skips(run: Run, *, at_least: int = 0) -> None:
    """End the run if too many of its samples were skipped, but not before every process has seen `at_least`.

    Raises:
        SkippedTooMany: over all processes.
    """
    states = gather_object([run.skips.state_dict()])
    if min(state["num_samples"] for state in states) >= at_least:
        others = [state for rank, state in enumerate(states) if rank != run.accelerator.process_index]
        run.skips.check(run.config.data.max_skipped_share, others)


def _train_step(run: Run, phase: Phase, model: nn.Module, optimizer: Any, batch: StepBatch) -> Health:
    """One step of the optimizer; whether its numbers were any is for the caller to see before anything is saved."""
    model.train()
    accelerator = run.accelerator
    health = Health(accelerator.device)
    parts = [collate(samples, run.blank) for samples in batch.micro_batches]
    counted = torch.tensor(sum(int(part.counts_in_loss.sum()) for part in parts), device=accelerator.device)
    total = int(accelerator.reduce(counted, reduction="sum"))
    # Processes and accumulation take a mean, so that this makes the gradient that of the mean over samples that count.
    scale = accelerator.num_processes * len(parts) / max(total, 1)
    for place, part in enumerate(parts):
        number = accelerator.process_index + place * accelerator.num_processes
        seeds = (run.config.seed, phase.name, batch.step)
        # What dropout draws depends on the step and the micro-batch, not on the process or on what was drawn before.
        torch.manual_seed(zlib.crc32("/".join(map(str, (*seeds, number))).encode()))
        # In shards, gradients that are not reduced at once would be whole on every device.
        with accelerator.accumulate(*([] if accelerator.distributed_type in SHARDED else [model])):
            losses = phase.stepper.losses(model, part.to(accelerator.device), seeds, health)
            health.samples(part, "loss", losses)
            counts = part.counts_in_loss.to(losses.device)
            accelerator.backward(scale * torch.where(counts, losses, 0.0).sum())
            if accelerator.sync_gradients:
                health.gradient(accelerator.clip_grad_norm_(model.parameters(), phase.optimizer.clip_norm))
            optimizer.step()
            optimizer.zero_grad()
    return health


@dataclass
class _Stop:
    requested: bool = False


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """SIGTERM and Ctrl-C ask for a stop behind the step that runs; a second Ctrl-C ends at once."""
    stop = _Stop()

    def request(number: int, _: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    earlier = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
