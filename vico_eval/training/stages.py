"""The two stages, from a configuration to a finished model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.tokenizer_files import copy_tokenizer
from vico_eval.files import write_text
from vico_eval.training.config import ConsistencyConfig, OptimizerSettings, RouterConfig, RunConfig
from vico_eval.training.consistency import ConsistencyStepper
from vico_eval.training.data.batches import MicroBatch
from vico_eval.training.data.samples import Data
from vico_eval.training.held_out import as_dict
from vico_eval.training.loop.accelerated import (
    SHARDED,
    configure_deepspeed,
    make_accelerator,
    on_main,
    receives_weights,
)
from vico_eval.training.loop.finite import as_json
from vico_eval.training.loop.phase import Phase, Stepper, Training
from vico_eval.training.loop.schedule import optimizing
from vico_eval.training.loop.steps import run_phase
from vico_eval.training.models.blank import building, give_addresses
from vico_eval.training.models.opening import (
    add_adapters,
    add_low_connector,
    add_router,
    halve_reference,
    merge_adapters,
    open_model,
)
from vico_eval.training.models.packed_attention import attend_by_sample
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy, has_same_vision, round_weights
from vico_eval.training.router import RouterInTraining, RouterStepper
from vico_eval.training.saving.files import weights_problem, whole_file, whole_folder
from vico_eval.training.saving.resume import check_out, newest
from vico_eval.training.session import Session, opened

SKIPS_SAY_SOMETHING = 1000
"""Number of samples per process before the share of skipped samples can end a run."""

MODEL = "model"
"""The finished model's folder in a run's `out`."""

REPORT = "held_out.json"
_WARM = "warm_connector.safetensors"


@dataclass
class _Trainee:
    """Stage 1's models."""

    pair: PolicyAndReference
    tokenizer: PreTrainedTokenizerBase

    @property
    def low(self) -> nn.Module:
        """The low connector."""
        assert self.pair.policy.connector_low is not None
        return self.pair.policy.connector_low


def train_consistency(config: ConsistencyConfig) -> Path:
    """Run stage 1: train the low connector alone, then the policy; every process of a run makes the same call.

    Returns:
        The finished model's folder.

    Raises:
        ConfigError: settings conflict with each other or with accelerate's configuration.
        CheckpointError: the base model can't be loaded, or `out` has checkpoints of another configuration, training
            or data, or only damaged ones.
        NotFinite: a loss, gradient, loss ratio or weight is not finite; the last checkpoint is from before.
        OutputError: another training is writing into `out`.
        Stopped: SIGTERM or Ctrl-C; the same command resumes the training.
    """
    check_out(config.out, ("warmup", "train"))
    with opened(make_accelerator(config), config, (config.checkpoint,)) as session:
        return _train_consistency(session, config)


def _train_consistency(session: Session, config: ConsistencyConfig) -> Path:
    accelerator = session.accelerator
    _check_reference(config, accelerator)
    if config.lora is not None and accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ConfigError("`lora` can't be combined with DeepSpeed; use FSDP2 or DDP, or train all weights.")
    if config.lora is not None and config.reference != "copy":
        raise ConfigError("With `lora` the reference is the policy without its adapters; leave `reference` out.")
    warm = config.out / _WARM
    if config.warmup is not None and not _is_warm(session, warm):
        _warm_up(session, config, warm)
    trainee = _build(config, accelerator)
    if config.warmup is not None and not receives_weights(accelerator):
        trainee.low.load_state_dict(load_file(warm))
    _unfreeze(trainee, config)
    data, held_out = session.data(trainee.pair.policy, trainee.tokenizer)
    stepper = ConsistencyStepper(trainee.pair.policy.config, session.training.watch, held_out, per=config.low_share_per)
    steps_before = 0 if config.warmup is None else config.warmup.steps
    phase = _phase(session, "train", trainee.pair, stepper, data, config.train)
    model = run_phase(session.training, replace(phase, steps_before=steps_before))
    _write_report(session.training, {"consistency": as_dict(held_out.report(model))})
    weights = _weights(accelerator, model, "policy.")
    if config.lora is not None:
        weights = merge_adapters(weights, config.lora)
    return _save(session, data, trainee.pair.policy, config.checkpoint, weights)


def train_router(config: RouterConfig) -> Path:
    """Run stage 2: train the router alone; every process of a run makes the same call.

    Returns:
        The folder of the finished model, which is the policy with its router.

    Raises:
        The errors of `train_consistency`.
    """
    check_out(config.out, (_router_phase(config),))
    with opened(make_accelerator(config), config, (config.checkpoint, config.policy)) as session:
        return _train_router(session, config)


def _train_router(session: Session, config: RouterConfig) -> Path:
    accelerator = session.accelerator
    _check_reference(config, accelerator)
    policy, tokenizer = _open(config.policy, config, accelerator)
    if policy.connector_low is None:
        raise CheckpointError(f"{config.policy!r} has no low connector; expected a model from stage 1.")
    can_round = _can_round(config, accelerator)
    if can_round:
        round_weights(policy, torch.bfloat16)
    base, _ = _open(config.checkpoint, config, accelerator)
    _check_same_sizes(policy, base, config)
    if can_round:
        round_weights(base, torch.bfloat16)
    if on_main(accelerator, lambda: has_same_vision(policy, base)):
        base.vision_tower = policy.vision_tower
    if config.reference == "int8":
        halve_reference(base)
    torch.manual_seed(config.seed)
    with building(is_blank=receives_weights(accelerator)):
        add_router(policy, config.level, dropout=config.router_dropout)
    policy.requires_grad_(False)
    pair = PolicyAndReference(policy, base, chunk=config.logit_chunk, most=_most(accelerator))
    give_addresses(pair)
    trainee = RouterInTraining(pair, config.level, config.epsilon)
    trainee.router.requires_grad_(True)
    data, held_out = session.data(policy, tokenizer)
    name = _router_phase(config)
    stepper = RouterStepper(accelerator, policy.config, config, session.training.watch, held_out)
    phase = _phase(session, name, trainee, stepper, data, config.train)
    model = run_phase(session.training, replace(phase, resumables={**phase.resumables, "labels": stepper.labels}))
    _write_report(session.training, {name: stepper.report(model)})
    return _save(session, data, policy, config.policy, _weights(accelerator, model, "pair.policy."))


def _phase(
    session: Session,
    name: str,
    model: nn.Module,
    stepper: Stepper[MicroBatch],
    data: Data,
    settings: OptimizerSettings,
) -> Phase[MicroBatch]:
    """Build a phase that trains on the samples of the session's configuration."""
    configure_deepspeed(session.accelerator, session.config, settings)
    return Phase(
        name=name,
        model=model,
        stepper=stepper,
        batches=data.batches,
        optimizing=optimizing(model, settings),
        resumables=data.resumables,
        check=partial(data.check_skips, at_least=SKIPS_SAY_SOMETHING),
    )


def _router_phase(config: RouterConfig) -> str:
    return f"{config.level}_router"


def _is_warm(session: Session, warm: Path) -> bool:
    """Whether the warm-up is done and its weights file is intact; if it is not, the checkpoint still has the
    weights."""
    training = session.training
    if newest(training.accelerator, training.checkpoints("warmup"), training.watch) is None:
        return False

    def is_sound() -> bool:
        if not warm.exists():
            return False
        problem = weights_problem(warm)
        if problem is not None:
            training.watch.say(f"{warm} {problem}; it is rewritten from the last checkpoint of the warm-up.")
        return problem is None

    return on_main(training.accelerator, is_sound)


def _warm_up(session: Session, config: ConsistencyConfig, warm: Path) -> None:
    """Train the new low connector alone and write its weights to `warm`.

    This uses separate models, because the set of trained weights can't be changed once a model is sharded.
    """
    assert config.warmup is not None
    accelerator = session.accelerator
    if accelerator.is_main_process:
        warm.unlink(missing_ok=True)  # left by a run whose checkpoints were removed
    trainee = _build(config, accelerator, only_low=True)
    trainee.low.requires_grad_(True)
    data, held_out = session.data(trainee.pair.policy, trainee.tokenizer)
    stepper = ConsistencyStepper(
        trainee.pair.policy.config, session.training.watch, held_out, per=config.low_share_per, at_least=1
    )
    model = run_phase(session.training, _phase(session, "warmup", trainee.pair, stepper, data, config.warmup))
    weights = _weights(accelerator, model, "policy.connector_low.")
    if accelerator.is_main_process:
        with whole_file(warm) as unfinished:
            save_file({name: value.contiguous() for name, value in weights.items()}, unfinished)
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def _build(config: ConsistencyConfig, accelerator: Accelerator, *, only_low: bool = False) -> _Trainee:
    """Build policy and reference, all frozen; with `only_low`, without a reference copy or adapters."""
    policy, tokenizer = _open(config.checkpoint, config, accelerator)
    # The copy is made before the low connector is added, in bfloat16 where frozen weights may be rounded.
    can_round = _can_round(config, accelerator)
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
    with building(is_blank=receives_weights(accelerator)):
        if config.lora is not None and not only_low:
            adapters = add_adapters(policy, config.lora)
        add_low_connector(policy)
    policy.requires_grad_(False)
    if config.gradient_checkpointing:
        for part in (policy.language_model, policy.vision_tower):
            part.gradient_checkpointing_enable({"use_reentrant": False})
    pair = PolicyAndReference(policy, reference, adapters=adapters, chunk=config.logit_chunk, most=_most(accelerator))
    give_addresses(pair)
    return _Trainee(pair, tokenizer)


def _open(name: str, config: RunConfig, accelerator: Accelerator) -> tuple[VicoInternVL, PreTrainedTokenizerBase]:
    """Open a checkpoint's model and tokenizer, without weights on processes that receive them; an error in reading the
    weights is raised on every process."""
    model, tokenizer = _read(name, config, accelerator)
    if config.data.packed:
        attend_by_sample(model)
    return model, tokenizer


def _read(name: str, config: RunConfig, accelerator: Accelerator) -> tuple[VicoInternVL, PreTrainedTokenizerBase]:
    if accelerator.distributed_type != DistributedType.FSDP:
        return open_model(name, config.attn_implementation)
    found: list[tuple[VicoInternVL, PreTrainedTokenizerBase]] = []

    def read() -> None:
        found.append(open_model(name, config.attn_implementation))

    on_main(accelerator, read)
    return found[0] if found else open_model(name, config.attn_implementation, is_blank=True)


def _can_round(config: RunConfig, accelerator: Accelerator) -> bool:
    """Whether frozen weights may be stored in bfloat16; DeepSpeed requires one precision for all weights."""
    return config.precision == "bf16" and accelerator.distributed_type != DistributedType.DEEPSPEED


def _unfreeze(trainee: _Trainee, config: ConsistencyConfig) -> None:
    """Unfreeze what stage 1 trains: everything except the routers and, if so configured, the vision encoder; with LoRA,
    only the low connector and the adapters."""
    policy = trainee.pair.policy
    trainee.low.requires_grad_(True)
    if config.lora is None:
        policy.connector_high.requires_grad_(True)
        policy.language_model.requires_grad_(True)
    else:
        for name, parameter in policy.language_model.named_parameters():
            parameter.requires_grad_("lora_" in name)
    policy.vision_tower.requires_grad_(config.train_vision)


def _most(accelerator: Accelerator) -> Callable[[int], int] | None:
    """With DeepSpeed, return a function that takes the maximum over all processes, else None."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return None
    return lambda number: int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())


def _check_reference(config: RunConfig, accelerator: Accelerator) -> None:
    if config.reference == "int8" and accelerator.distributed_type in SHARDED:
        raise ConfigError(
            "`reference: int8` can't be sharded (FSDP, DeepSpeed). Leave it out; sharding saves more memory."
        )


def _check_same_sizes(policy: VicoInternVL, base: VicoInternVL, config: RouterConfig) -> None:
    for name in ("text_config", "vision_config"):
        one, other = (getattr(model.config, name).hidden_size for model in (policy, base))
        if one != other:
            raise CheckpointError(
                f"policy {config.policy!r} and checkpoint {config.checkpoint!r} differ in width ({name}: {one} and "
                f"{other}). `checkpoint` is the base model that stage 1 started from."
            )


def _write_report(training: Training, report: dict[str, Any]) -> None:
    """Write the report to `held_out.json` and the log."""
    if training.accelerator.is_main_process:
        write_text(training.out / REPORT, as_json(report, indent=2) + "\n")
    training.watch.write(report)


def _weights(accelerator: Accelerator, model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Return the unsharded weights of a part of a wrapped model, by their names within the part; only the first process
    is sure to get all of them."""
    if accelerator.distributed_type == DistributedType.FSDP:
        return _gathered(accelerator, model, prefix)
    # With ZeRO-3 the other processes get None.
    state: dict[str, Tensor] = accelerator.get_state_dict(model) or {}
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _gathered(accelerator: Accelerator, model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Do as `_weights` for a sharded model: gather one weight at a time, and leave out the reference's."""
    names = {name for name, _ in model.named_parameters()}  # leaves out a head that is tied to the embedding
    weights = {}
    for name, value in model.state_dict().items():
        if name.startswith(prefix) and name in names:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if accelerator.is_main_process:
                weights[name.removeprefix(prefix)] = whole.detach().cpu()
    return weights


def _save(
    session: Session,
    data: Data,
    policy: VicoInternVL,
    source: str,
    weights: dict[str, Tensor],
) -> Path:
    """Save the finished model in this package's layout, in bfloat16 unless the run computed in float32.

    Its tokenizer files are byte-for-byte copies of those of the checkpoint `source`.
    """
    folder = session.config.out / MODEL
    if session.accelerator.is_main_process:
        dtype = torch.bfloat16 if session.config.precision == "bf16" else torch.float32
        policy.config.dtype = dtype
        with whole_folder(folder) as unfinished:
            for name, value in weights.items():
                weights[name] = value.to(dtype)  # one by one: converting all at once would take 50% more memory
            policy.save_pretrained(unfinished, state_dict=weights)
            copy_tokenizer(find_checkpoint(source).folder, unfinished)
    session.accelerator.wait_for_everyone()
    data.check_skips()
    session.accelerator.end_training()  # trackers write what they still hold
    return folder
