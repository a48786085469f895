"""The training loop on accelerate: steps, gradients, checkpoints, and graceful stops."""

from __future__ import annotations

import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn

from vico_eval.errors import UserError
from vico_eval.training.loop.accelerated import SHARDED, share_only_trained
from vico_eval.training.loop.health import Health, anywhere
from vico_eval.training.loop.phase import Batch, Phase, Resumable, Step, Training
from vico_eval.training.saving.resume import load_checkpoint, newest, save_checkpoint


class Stopped(UserError):
    """The training stopped on request, after saving a checkpoint."""


def run_phase(training: Training, phase: Phase[Batch]) -> nn.Module:
    """Train a phase from its newest checkpoint to its end; every process makes the same call.

    Returns:
        The trained model in accelerate's wrapper, in evaluation mode.

    Raises:
        Stopped: SIGTERM or Ctrl-C; the last finished step has been saved.
        NotFinite: a loss, gradient, loss ratio or weight is not finite; the last checkpoint is from before.
        CheckpointError: the folder has checkpoints of another configuration.
        UserError: raised by `phase.check`.
    """
    accelerator = training.accelerator
    checkpoints = training.checkpoints(phase.name)
    done = newest(accelerator, checkpoints, training.watch)
    schedulers = phase.optimizing.schedulers
    accelerator.free_memory()
    share_only_trained(phase.model)
    model: nn.Module
    model, *optimizers = accelerator.prepare(phase.model, *phase.optimizing.optimizers)
    state: dict[str, Resumable] = {"schedule": schedulers[0], **phase.resumables}
    state |= {f"schedule.{number}": one for number, one in enumerate(schedulers[1:], start=1)}
    first, last = 0, phase.optimizing.steps
    if done is not None:
        load_checkpoint(accelerator, checkpoints.path(done.step), state)
        first = done.step
    with (
        training.watch.phase(phase.name, first, last, phase.steps_before),
        _stop_signals() as stop,
        phase.batches(first) as steps,
    ):
        for number in range(first, last):
            began = time.monotonic()
            health = _train_step(training, phase, model, optimizers, next(steps))
            stopping, is_ill = anywhere(accelerator, [stop.requested, health.is_ill()])
            if is_ill:
                health.stop(f"In step {number} of {phase.name}", checkpoints.kept())
            training.watch.step(number, float(schedulers[0].get_last_lr()[0]), time.monotonic() - began)
            for scheduler in schedulers:
                scheduler.step()
            done_now = number + 1
            if stopping or done_now % training.saving.every == 0 or done_now == last:
                # A requested stop should not wait for a measurement.
                measure = not stopping or done_now == last
                save_checkpoint(training, phase, model, done_now, state, measure=measure)
                phase.check()
            if stopping and done_now < last:
                raise Stopped(
                    f"Stopped after step {done_now} of {last} of {phase.name} and saved a checkpoint. "
                    f"{training.to_go_on}"
                )
    model.eval()
    return model


def _train_step(
    training: Training, phase: Phase[Batch], model: nn.Module, optimizers: Sequence[Any], step: Step[Batch]
) -> Health:
    """Take one optimizer step; the caller must check the returned health before it saves anything."""
    model.train()
    accelerator = training.accelerator
    health = Health(accelerator.device)
    parts = step.micro_batches
    counted = torch.tensor(sum(int(part.counts_in_loss.sum()) for part in parts), device=accelerator.device)
    total = int(accelerator.reduce(counted, reduction="sum"))
    # Gradients are averaged over processes and accumulated micro-batches; this scale turns that into the gradient of
    # the mean over the samples that count.
    scale = accelerator.num_processes * len(parts) / max(total, 1)
    for place, part in enumerate(parts):
        number = accelerator.process_index + place * accelerator.num_processes
        seeds = (training.seed, phase.name, step.number)
        # Dropout must depend on the step and the micro-batch only, not on the process or on earlier draws.
        torch.manual_seed(zlib.crc32("/".join(map(str, (*seeds, number))).encode()))
        # With sharded models, gradients that are not reduced at once would be held unsharded on every device.
        with accelerator.accumulate(*([] if accelerator.distributed_type in SHARDED else [model])):
            losses = phase.stepper.losses(model, part.to(accelerator.device), seeds, health)
            health.samples(part, "loss", losses)
            counts = part.counts_in_loss.to(losses.device)
            accelerator.backward(scale * torch.where(counts, losses, 0.0).sum())
            if accelerator.sync_gradients:
                health.gradient(accelerator.clip_grad_norm_(model.parameters(), phase.optimizing.clip_norm))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return health


@dataclass
class _Stop:
    requested: bool = False


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Let SIGTERM and Ctrl-C request a stop after the current step; a second Ctrl-C ends the process at once."""
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
