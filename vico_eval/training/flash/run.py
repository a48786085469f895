"""The two stages, from a configuration to a finished model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.internvl.modeling import VicoInternVL
from vico_eval.training.flash.accelerated import SHARDED, make_accelerator
from vico_eval.training.flash.config import ConsistencyConfig, RouterConfig, RunConfig
from vico_eval.training.flash.consistency import ConsistencyStepper
from vico_eval.training.flash.data import Data
from vico_eval.training.flash.held_out import HeldOut, as_dict
from vico_eval.training.flash.loop import check_skips, run_phase
from vico_eval.training.flash.models import add_adapters, add_low_connector, add_router, halve_reference, open_model
from vico_eval.training.flash.pair import PolicyAndReference, frozen_copy, round_weights, share_vision
from vico_eval.training.flash.phase import Phase, Run
from vico_eval.training.flash.router import RouterInTraining, RouterStepper
from vico_eval.training.flash.saving import check_out, checkpoints_of
from vico_eval.training.flash.watch import Watch

MODEL = "model"
"""The finished model's folder in a run's `out`."""

REPORT = "held_out.json"
_WARM = "warm_connector.safetensors"


@dataclass
class _Trainee:
    """Stage 1's models."""

    pair: PolicyAndReference
    tokenizer: PreTrainedTokenizerBase
    adapters: Any

    @property
    def low(self) -> nn.Module:
        """The low connector."""
        assert self.pair.policy.connector_low is not None
        return self.pair.policy.connector_low


def train_consistency(config: ConsistencyConfig) -> Path:
    """Stage 1: the low connector alone, then the policy; every process of a run calls this alike.

    Returns:
        The finished model's folder.

    Raises:
        ConfigError: settings that can't be combined, or not with what accelerate was configured for.
        CheckpointError: the base model can't be loaded, or `out` has checkpoints of another configuration or
            training.
        Stopped: SIGTERM or Ctrl-C; the same command goes on.
    """
    check_out(config, ("warmup", "train"))
    accelerator = make_accelerator(config)
    _check_reference(config, accelerator)
    if config.lora is not None and accelerator.distributed_type in SHARDED:
        raise ConfigError("`lora` can't be combined with FSDP or DeepSpeed here; use DDP, or train all weights.")
    if config.lora is not None and config.reference != "copy":
        raise ConfigError("with `lora` the reference is the policy without its adapters: leave `reference` out.")
    warm = config.out / _WARM
    if config.warmup is not None and (checkpoints_of(config, "warmup").newest() is None or not warm.exists()):
        _warm_up(accelerator, config, warm)
    trainee = _build(config, accelerator)
    if config.warmup is not None:
        trainee.low.load_state_dict(load_file(warm))
    _unfreeze(trainee, config)
    run, held_out = _open_run(accelerator, config, trainee.pair.policy, trainee.tokenizer)
    stepper = ConsistencyStepper(trainee.pair.policy.config, run.watch, held_out)
    steps_before = 0 if config.warmup is None else config.warmup.steps
    model = run_phase(run, Phase("train", trainee.pair, config.train, stepper, {}, steps_before))
    _write_report(run, {"consistency": as_dict(held_out.report(model))})
    weights = _weights(accelerator, model, "policy.")
    policy = trainee.pair.policy
    if trainee.adapters is not None:
        policy.language_model = trainee.adapters.merge_and_unload()
        weights = dict(policy.state_dict())
    return _save(run, policy, trainee.tokenizer, weights)


def train_router(config: RouterConfig) -> Path:
    """Stage 2: the router alone; every process of a run calls this alike.

    Returns:
        The finished model's folder: the policy with its router.

    Raises:
        As `train_consistency`.
    """
    phase_name = f"{config.level}_router"
    check_out(config, (phase_name,))
    accelerator = make_accelerator(config)
    _check_reference(config, accelerator)
    policy, tokenizer = open_model(config.policy, config.attn_implementation)
    if policy.connector_low is None:
        raise CheckpointError(f"{config.policy!r} has no low connector; expected what stage 1 made.")
    base, _ = open_model(config.checkpoint, config.attn_implementation)
    _check_same_sizes(policy, base, config)
    if config.precision == "bf16" and accelerator.distributed_type not in SHARDED:
        for frozen in (policy, base):
            round_weights(frozen, torch.bfloat16)
    share_vision(policy, base)
    if config.reference == "int8":
        halve_reference(base)
    torch.manual_seed(config.seed)
    add_router(policy, config.level)
    policy.requires_grad_(False)
    pair = PolicyAndReference(policy, base, chunk=config.logit_chunk, most=_most(accelerator))
    trainee = RouterInTraining(pair, config.level, config.epsilon)
    trainee.router.requires_grad_(True)
    run, held_out = _open_run(accelerator, config, policy, tokenizer)
    stepper = RouterStepper(accelerator, policy.config, config, run.watch, held_out)
    phase = Phase(phase_name, trainee, config.train, stepper, {"labels": stepper.labels})
    model = run_phase(run, phase)
    _write_report(run, {phase_name: stepper.report(model)})
    return _save(run, policy, tokenizer, _weights(accelerator, model, "pair.policy."))


def _warm_up(accelerator: Accelerator, config: ConsistencyConfig, warm: Path) -> None:
    """Train the new low connector alone, and leave its weights in `warm`.

    In models of its own: once they are shared among devices, what is trained can't be chosen anew.
    """
    assert config.warmup is not None
    if accelerator.is_main_process:
        warm.unlink(missing_ok=True)  # of a run whose checkpoints somebody removed
    trainee = _build(config, accelerator, only_low=True)
    trainee.low.requires_grad_(True)
    run, held_out = _open_run(accelerator, config, trainee.pair.policy, trainee.tokenizer)
    stepper = ConsistencyStepper(trainee.pair.policy.config, run.watch, held_out, at_least=1)
    model = run_phase(run, Phase("warmup", trainee.pair, config.warmup, stepper, {}))
    weights = _weights(accelerator, model, "policy.connector_low.")
    if accelerator.is_main_process:
        unfinished = warm.with_name(f"{warm.name}.unfinished")
        save_file({name: value.contiguous() for name, value in weights.items()}, unfinished)
        unfinished.replace(warm)
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def _build(config: ConsistencyConfig, accelerator: Accelerator, *, only_low: bool = False) -> _Trainee:
    """Policy and reference, all frozen; without a copy or adapters where only the low connector is to be trained."""
    policy, tokenizer = open_model(config.checkpoint, config.attn_implementation)
    # The copy is made before the low connector is added, and takes bfloat16 where nothing keeps it from doing so.
    can_round = config.precision == "bf16" and accelerator.distributed_type not in SHARDED
    torch.manual_seed(config.seed)
    adapters = reference = None
    if config.lora is None and not only_low:
        dtype = torch.bfloat16 if can_round else None
        reference = frozen_copy(policy, train_vision=config.train_vision, dtype=dtype)
        if config.reference == "int8":
            halve_reference(reference)
    if can_round:
        stays_frozen = [] if config.train_vision and not only_low else [policy.vision_tower]
        if config.lora is not None or only_low:
            stays_frozen += [policy.connector_high, policy.language_model]
        for part in stays_frozen:
            round_weights(part, torch.bfloat16)
    if config.lora is not None and not only_low:
        adapters = add_adapters(policy, config.lora)
    add_low_connector(policy)
    policy.requires_grad_(False)
    if config.gradient_checkpointing:
        policy.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    pair = PolicyAndReference(policy, reference, adapters=adapters, chunk=config.logit_chunk, most=_most(accelerator))
    return _Trainee(pair, tokenizer, adapters)


def _unfreeze(trainee: _Trainee, config: ConsistencyConfig) -> None:
    """Choose what stage 1 trains: everything but the routers, or the low connector and adapters."""
    policy = trainee.pair.policy
    trainee.low.requires_grad_(True)
    if config.lora is None:
        policy.connector_high.requires_grad_(True)
        policy.language_model.requires_grad_(True)
    else:
        for name, parameter in policy.language_model.named_parameters():
            parameter.requires_grad_("lora_" in name)
    policy.vision_tower.requires_grad_(config.train_vision)


def _open_run(
    accelerator: Accelerator, config: RunConfig, policy: VicoInternVL, tokenizer: PreTrainedTokenizerBase
) -> tuple[Run, HeldOut]:
    config.out.mkdir(parents=True, exist_ok=True)
    data = Data(config, policy.config, tokenizer, accelerator)
    watch = Watch(accelerator, config.out)
    run = Run(accelerator, config, data.batches, data.blank, data.skips, watch)
    return run, HeldOut(accelerator, data.held_out)


def _most(accelerator: Accelerator) -> Callable[[int], int] | None:
    """The largest of all processes' numbers, with DeepSpeed."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return None
    return lambda number: int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())


def _check_reference(config: RunConfig, accelerator: Accelerator) -> None:
    if config.reference == "int8" and accelerator.distributed_type in SHARDED:
        raise ConfigError("`reference: int8` can't be in shards (FSDP, DeepSpeed), which save more; leave it out.")


def _check_same_sizes(policy: VicoInternVL, base: VicoInternVL, config: RouterConfig) -> None:
    for name in ("text_config", "vision_config"):
        one, other = (getattr(model.config, name).hidden_size for model in (policy, base))
        if one != other:
            raise CheckpointError(
                f"policy {config.policy!r} and checkpoint {config.checkpoint!r} differ in width ({name}: {one} and "
                f"{other}). `checkpoint` is the base model that stage 1 started from."
            )


def _write_report(run: Run, report: dict[str, Any]) -> None:
    """Leave the report in `held_out.json`."""
    if run.accelerator.is_main_process:
        (run.config.out / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    run.watch.write(report)


def _weights(accelerator: Accelerator, model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Whole weights of a part of a wrapped model, by their names in it; on the first process at least."""
    # With ZeRO-3 the other processes get None.
    state: dict[str, Tensor] = accelerator.get_state_dict(model) or {}
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _save(run: Run, policy: VicoInternVL, tokenizer: PreTrainedTokenizerBase, weights: dict[str, Tensor]) -> Path:
    """The finished model in this package's layout, bfloat16 unless the run computed in float32."""
    folder = run.config.out / MODEL
    if run.accelerator.is_main_process:
        dtype = torch.bfloat16 if run.config.precision == "bf16" else torch.float32
        policy.config.dtype = dtype
        policy.save_pretrained(folder, state_dict={name: value.to(dtype) for name, value in weights.items()})
        tokenizer.save_pretrained(folder)
    run.accelerator.wait_for_everyone()
    check_skips(run)
    run.accelerator.end_training()  # trackers write what they still hold
    return folder
