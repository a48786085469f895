"""Setting up accelerate for a run: processes, precision, trackers, and the settings of DDP, FSDP2 and DeepSpeed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
)
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn.parallel import DistributedDataParallel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from vico_eval.errors import ConfigError, UserError
from vico_eval.training.config import OptimizerSettings, RunConfig

Result = TypeVar("Result")

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
"""Distributed types under which no process holds all weights."""

_LONGEST_WAIT = timedelta(hours=2)
"""How long processes wait for each other. One process alone reads and checks the weights, possibly hundreds of GB."""


def make_accelerator(config: RunConfig) -> Accelerator:
    """Create the accelerator; accelerate's own configuration decides the number of processes and the sharding.

    Raises:
        ConfigError: the global batch can't be divided among the processes, or the configuration has FSDP version 1.
    """
    trackers = _trackers(config)
    accelerator = Accelerator(
        # By default, without a GPU, accelerate would let each of several processes train independently.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=trackers,
        project_dir=str(config.out),
        # The number of accumulated micro-batches is set below: it depends on the number of processes.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # Otherwise transformers would load a model in shards, of which no frozen copy can be made.
        unset_hf_deepspeed_config()
    if accelerator.distributed_type == DistributedType.FSDP:
        configure_fsdp(accelerator, config)
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
    """Return the names of the trackers to use.

    Raises:
        ConfigError: a tracker is not installed.
    """
    if config.trackers is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    if missing := [name for name in config.trackers if not find_spec(name)]:
        raise ConfigError(
            f"trackers has {', '.join(missing)}, which is not installed: pip install {' '.join(missing)}."
        )
    return list(config.trackers)


def on_main(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Run `work` on the first process and return its result on all; a UserError is raised on all processes too."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except UserError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    result, failure = outcome
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


def share_only_trained(model: nn.Module) -> None:
    """Keep DDP from broadcasting frozen weights: every process has read them, and 8-bit weights can't be sent."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)


def receives_weights(accelerator: Accelerator) -> bool:
    """Whether this process receives its weights. With FSDP only the first process reads them, and sends the shards."""
    return accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_main_process


def configure_fsdp(accelerator: Accelerator, config: RunConfig) -> None:
    """Set FSDP2's precision, and have it load weights on the first process only.

    Raises:
        ConfigError: accelerate's configuration has FSDP version 1.
    """
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ConfigError(
            f"accelerate's configuration has fsdp_version {plugin.fsdp_version}; expected 2, as in "
            "models/training/fsdp2.yaml."
        )
    plugin.cpu_ram_efficient_loading = True
    # By default accelerate reduces gradients in bfloat16 and rounds every output to it, including losses and loss
    # ratios. With this policy outputs keep the model's precision: float32 for losses, bfloat16 for hidden states.
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if config.precision == "bf16" else None, reduce_dtype=torch.float32
    )


def configure_deepspeed(accelerator: Accelerator, config: RunConfig, settings: OptimizerSettings) -> None:
    """Set the DeepSpeed options that it would otherwise take from a data loader or from its static configuration."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_batch_size=config.global_batch,
            train_micro_batch_size_per_gpu=config.micro_batch,
            gradient_accumulation_steps=accelerator.gradient_accumulation_steps,
            gradient_clipping=settings.clip_norm,
        )
