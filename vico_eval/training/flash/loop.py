"""The loop that both stages share, on accelerate: steps, gradients, checkpoints, and stopping in good order."""

from __future__ import annotations

import json
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin, gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from vico_eval.errors import CheckpointError, ConfigError, UserError
from vico_eval.training.flash.batches import MicroBatch, collate
from vico_eval.training.flash.checkpoints import Checkpoints
from vico_eval.training.flash.config import OptimizerSettings, RunConfig
from vico_eval.training.flash.corpus.prepare import TrainingSample
from vico_eval.training.flash.corpus.skips import SkipCount
from vico_eval.training.flash.corpus.stream import StepBatch
from vico_eval.training.flash.schedule import make_optimizer, make_scheduler
from vico_eval.training.flash.watch import Watch

SKIPS_SAY_SOMETHING = 1000
"""Samples of every process before which a run does not end for the share of skipped ones among them."""

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
"""Where no process has all weights."""

_TRAINED = "trained.safetensors"

Batches = Callable[[int], AbstractContextManager[Iterator[StepBatch]]]
"""From a step to the batches of that step and all later ones; leaving it ends the threads that prepare them."""


class Stopped(UserError):
    """The run was asked to stop, and saved."""


class Stepper(Protocol):
    """What a stage computes."""

    def losses(self, model: nn.Module, batch: MicroBatch, seeds: tuple[object, ...]) -> Tensor:
        """[samples]: the loss of each sample of a micro-batch."""

    def held_out(self, model: nn.Module) -> float:
        """The loss on held-out samples, over all processes."""

    def distributions(self) -> dict[str, list[float]]:
        """What else is shown at a checkpoint, by name."""


class Resumable(Protocol):
    """What a checkpoint holds besides weights, optimizer and random states."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, in numbers, texts, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""


@dataclass(frozen=True)
class Phase:
    """A part of a run with an optimizer of its own."""

    name: str
    """Of its folder of checkpoints and its lines of the log."""

    model: nn.Module
    """What is computed in; of its parameters, those that require gradients are trained."""

    optimizer: OptimizerSettings
    stepper: Stepper
    resumables: dict[str, Resumable]


@dataclass(frozen=True)
class Run:
    """What all phases of a run share."""

    accelerator: Accelerator
    config: RunConfig
    batches: Batches
    blank: TrainingSample
    """Stands in for a sample that was skipped."""

    skips: SkipCount
    watch: Watch


def make_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate's own configuration decides how many processes there are and how they share the model.

    Raises:
        ConfigError: a global batch that can't be shared among them.
    """
    trackers = _trackers(config)
    accelerator = Accelerator(
        # Unasked, accelerate lets each of several processes without a GPU train all by itself.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=trackers,
        project_dir=str(config.out),
        # The number of accumulated micro-batches follows from the number of processes, which is known only now.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # Or transformers would load a model in shards, of which no frozen copy can be made.
        unset_hf_deepspeed_config()
    share = config.micro_batch * accelerator.num_processes
    if config.global_batch % share:
        raise ConfigError(
            f"global_batch is {config.global_batch}; expected a multiple of micro_batch x processes, "
            f"{config.micro_batch} x {accelerator.num_processes}."
        )
    accelerator.gradient_accumulation_steps = config.global_batch // share
    if trackers:
        accelerator.init_trackers("vico-eval", config={"config": config.model_dump_json()})
    return accelerator


def _trackers(config: RunConfig) -> list[str]:
    """Names of the trackers to use.

    Raises:
        ConfigError: one is not installed.
    """
    if config.trackers is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    if missing := [name for name in config.trackers if not find_spec(name)]:
        raise ConfigError(
            f"trackers has {', '.join(missing)}, which is not installed: pip install {' '.join(missing)}."
        )
    return list(config.trackers)


def run_phase(run: Run, phase: Phase) -> nn.Module:
    """Train a phase from its newest checkpoint to its end; every process calls this alike.

    Returns:
        The trained model, as accelerate wrapped it, in evaluation mode.

    Raises:
        Stopped: SIGTERM or Ctrl-C; a checkpoint of the last finished step is there.
        CheckpointError: the folder has checkpoints of another configuration.
        UserError: too many samples were skipped.
    """
    accelerator, config = run.accelerator, run.config
    checkpoints = checkpoints_of(config, phase.name)
    done = checkpoints.newest()
    optimizer = make_optimizer(phase.model.parameters(), phase.optimizer)
    scheduler = make_scheduler(optimizer, phase.optimizer)
    accelerator.free_memory()
    _share_only_trained(phase.model)
    _configure_deepspeed(accelerator, config, phase.optimizer)
    prepared: tuple[nn.Module, Any] = accelerator.prepare(phase.model, optimizer)
    model, wrapped = prepared
    state: dict[str, Resumable] = {"schedule": scheduler, "skips": run.skips, **phase.resumables}
    first, last = 0, phase.optimizer.steps
    if done is not None:
        _load(accelerator, checkpoints.path(done.step), state)
        first = done.step
    with run.watch.phase(phase.name, first, last), _stop_signals() as stop, run.batches(first) as batches:
        for step in range(first, last):
            began = time.monotonic()
            batch = next(batches)
            run.skips.count(batch)
            _train_step(run, phase, model, wrapped, batch)
            run.watch.step(step, float(scheduler.get_last_lr()[0]), time.monotonic() - began)
            scheduler.step()
            stopping = _anywhere(accelerator, stop.requested)
            done_now = step + 1
            if stopping or done_now % config.saving.every == 0 or done_now == last:
                # Whoever stops a run does not wait long for it.
                _save(run, phase, model, checkpoints, done_now, state, measure=not stopping or done_now == last)
                check_skips(run, at_least=SKIPS_SAY_SOMETHING)
            if stopping and done_now < last:
                raise Stopped(
                    f"Stopped behind step {done_now} of {last} of {phase.name}, and saved. Repeat the command to go on."
                )
    model.eval()
    return model


def _share_only_trained(model: nn.Module) -> None:
    """Keep DDP from sending frozen weights around: every process has read them, and those of 8 bits can't be sent."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)


def _configure_deepspeed(accelerator: Accelerator, config: RunConfig, settings: OptimizerSettings) -> None:
    """Tell DeepSpeed what it would take from a data loader, or from a configuration that does not know the run."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_batch_size=config.global_batch,
            train_micro_batch_size_per_gpu=config.micro_batch,
            gradient_accumulation_steps=accelerator.gradient_accumulation_steps,
            gradient_clipping=settings.clip_norm,
        )


def check_skips(run: Run, *, at_least: int = 0) -> None:
    """End the run if too many of its samples were skipped, but not before every process has seen `at_least`.

    Raises:
        SkippedTooMany: over all processes.
    """
    states = gather_object([run.skips.state_dict()])
    if min(state["num_samples"] for state in states) >= at_least:
        others = [state for rank, state in enumerate(states) if rank != run.accelerator.process_index]
        run.skips.check(run.config.data.max_skipped_share, others)


def _train_step(run: Run, phase: Phase, model: nn.Module, optimizer: Any, batch: StepBatch) -> None:
    model.train()
    accelerator = run.accelerator
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
            losses = phase.stepper.losses(model, part.to(accelerator.device), seeds)
            counts = part.counts_in_loss.to(losses.device)
            accelerator.backward(scale * torch.where(counts, losses, 0.0).sum())
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), phase.optimizer.clip_norm)
            optimizer.step()
            optimizer.zero_grad()


def _save(
    run: Run,
    phase: Phase,
    model: nn.Module,
    checkpoints: Checkpoints,
    step: int,
    state: dict[str, Resumable],
    *,
    measure: bool,
) -> None:
    """A resumable checkpoint; its held-out loss only where `measure` says so."""
    accelerator = run.accelerator
    folder = checkpoints.path(step)
    with _only_trained(accelerator):
        accelerator.save_state(str(folder))
    values = {name: part.state_dict() for name, part in state.items()}
    _state_path(folder, accelerator.process_index).write_text(json.dumps(values), encoding="utf-8")
    held_out = None
    if measure:
        model.eval()
        with torch.no_grad():
            held_out = phase.stepper.held_out(model)
        run.watch.held_out(step, held_out)
    for name, distribution in phase.stepper.distributions().items():
        run.watch.histogram(name, distribution, step)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        checkpoints.finish(step, held_out)
    accelerator.wait_for_everyone()


def _load(accelerator: Accelerator, folder: Path, state: dict[str, Resumable]) -> None:
    with _only_trained(accelerator):
        accelerator.load_state(str(folder))
    # Micro-batches behind the last step: none. Accelerate goes on counting, which is wrong with other processes.
    accelerator.step = 0
    own = _state_path(folder, accelerator.process_index)
    # A run that goes on with more processes: the new ones have counted nothing, and know the rest from the first one.
    known = state if own.exists() else {name: part for name, part in state.items() if name != "skips"}
    values = json.loads((own if own.exists() else _state_path(folder, 0)).read_text(encoding="utf-8"))
    for name, part in known.items():
        part.load_state_dict(values[name])


def _state_path(folder: Path, rank: int) -> Path:
    return folder / f"state.rank{rank}.json"


@contextmanager
def _only_trained(accelerator: Accelerator) -> Iterator[None]:
    """Saving and loading inside leave out frozen weights, which lie in the checkpoints that the run started from.

    Models in shards (FSDP, DeepSpeed) are saved by accelerate as they are.
    """
    if accelerator.distributed_type in SHARDED:
        yield
        return

    def save(models: list[nn.Module], weights: list[Any], folder: str) -> None:
        (model,) = models
        weights.clear()
        if accelerator.is_main_process:
            trained = {name: value.detach().contiguous() for name, value in _trained(accelerator, model).items()}
            save_file(trained, Path(folder) / _TRAINED)

    def load(models: list[nn.Module], folder: str) -> None:
        trained = _trained(accelerator, models.pop())
        found = load_file(Path(folder) / _TRAINED)
        if found.keys() != trained.keys():
            raise CheckpointError(f"{folder} holds other weights than this run trains; give the run another `out`.")
        for name, value in found.items():
            trained[name].data.copy_(value)

    hooks = accelerator.register_save_state_pre_hook(save), accelerator.register_load_state_pre_hook(load)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _trained(accelerator: Accelerator, model: nn.Module) -> dict[str, nn.Parameter]:
    plain = accelerator.unwrap_model(model)
    return {name: parameter for name, parameter in plain.named_parameters() if parameter.requires_grad}


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


def _anywhere(accelerator: Accelerator, flag: bool) -> bool:
    """Whether any process says so: all have to stop behind the same step."""
    return bool(accelerator.reduce(torch.tensor(int(flag), device=accelerator.device), reduction="sum"))


def checkpoints_of(config: RunConfig, phase: str) -> Checkpoints:
    """The checkpoints of a phase of a run; those of another configuration are refused when they are looked at."""
    return Checkpoints(config.out / "checkpoints" / phase, config.saving, _identity(config))


def _identity(config: RunConfig) -> dict[str, Any]:
    """What a checkpoint has to agree in: everything but where it lies, how it is saved and how it is shown."""
    free = {"out", "saving", "logit_chunk", "held_out_samples", "gradient_checkpointing", "trackers"}
    return config.model_dump(mode="json", exclude=free)
