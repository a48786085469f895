"""Saving and resuming a phase: trained weights, optimizer, random states, and the run's counters."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import nn

from vico_eval.errors import CheckpointError
from vico_eval.training.loop.accelerated import SHARDED, on_main
from vico_eval.training.loop.finite import NotFinite, all_finite, as_json, named, odd_weights
from vico_eval.training.loop.health import anywhere
from vico_eval.training.loop.phase import Batch, Phase, Resumable, Training
from vico_eval.training.loop.watch import Watch
from vico_eval.training.saving.checkpoints import Checkpoints, Progress

_TRAINED = "trained.safetensors"


def check_out(out: Path, phases: Collection[str]) -> None:
    """Check that `out` belongs to no other training, whose finished model would be overwritten.

    Raises:
        CheckpointError: it has checkpoints of phases other than `phases`.
    """
    if others := {folder.name for folder in (out / "checkpoints").glob("*")}.difference(phases):
        raise CheckpointError(
            f"{out} has checkpoints of another training ({', '.join(sorted(others))}), whose model/ would be "
            "overwritten. Give this run another `out`."
        )


def newest(accelerator: Accelerator, checkpoints: Checkpoints, watch: Watch) -> Progress | None:
    """Return the newest intact checkpoint, the same on every process; damaged ones are set aside, printed and logged.

    Raises:
        CheckpointError: as in `Checkpoints.newest`.
    """

    def say(message: str) -> None:
        watch.say(message)
        watch.write({"set_aside": message})

    return on_main(accelerator, lambda: checkpoints.newest(say))


def save_checkpoint(
    training: Training,
    phase: Phase[Batch],
    model: nn.Module,
    step: int,
    state: dict[str, Resumable],
    *,
    measure: bool,
) -> None:
    """Save a resumable checkpoint, with its held-out loss if `measure`.

    Raises:
        NotFinite: a weight or a held-out result is not finite; the checkpoint is then not counted as saved.
    """
    accelerator = training.accelerator
    checkpoints = training.checkpoints(phase.name)
    _check_weights(accelerator, model, f"After step {step} of {phase.name}", checkpoints)
    folder = checkpoints.path(step)
    with _only_trained(accelerator):
        accelerator.save_state(str(folder))
    values = {name: part.state_dict() for name, part in state.items()}
    _state_path(folder, accelerator.process_index).write_text(as_json(values), encoding="utf-8")
    held_out = None
    if measure:
        model.eval()
        with torch.no_grad():
            held_out = phase.stepper.held_out(model)
        if held_out is not None:
            training.watch.held_out(step, held_out)
    for name, distribution in phase.stepper.distributions().items():
        training.watch.histogram(name, distribution, step)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        checkpoints.finish(step, held_out)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, folder: Path, state: dict[str, Resumable]) -> None:
    with _only_trained(accelerator):
        accelerator.load_state(str(folder))
    # No micro-batch has been accumulated since the last step. Accelerate would continue its own count, which is wrong
    # if the number of processes has changed.
    accelerator.step = 0
    own = _state_path(folder, accelerator.process_index)
    # If a run resumes with more processes, the new ones have no skips of their own and take the rest from the first.
    known = state if own.exists() else {name: part for name, part in state.items() if name != "skips"}
    values = json.loads((own if own.exists() else _state_path(folder, 0)).read_text(encoding="utf-8"))
    for name, part in known.items():
        part.load_state_dict(values[name])


def _check_weights(accelerator: Accelerator, model: nn.Module, where: str, checkpoints: Checkpoints) -> None:
    """End the run on all processes if a trained weight is not finite."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    (is_odd,) = anywhere(accelerator, [~all_finite(trained.values())])
    if is_odd:
        names = sorted({name for names in gather_object([odd_weights(trained.items())]) for name in names})
        raise NotFinite(f"{where}, the weights {named(names)} are not finite. Nothing was saved; {checkpoints.kept()}")


def _state_path(folder: Path, rank: int) -> Path:
    return folder / f"state.rank{rank}.json"


@contextmanager
def _only_trained(accelerator: Accelerator) -> Iterator[None]:
    """Make saving and loading skip frozen weights, which are in the checkpoints that the run started from.

    Sharded models (FSDP, DeepSpeed) are saved whole by accelerate.
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
            raise CheckpointError(f"{folder} has other weights than this run trains; give the run another `out`.")
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
