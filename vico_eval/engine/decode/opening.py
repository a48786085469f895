"""Opening vLLM for a checkpoint: running servers, or an engine started from this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from vico_eval.engine.decode.backend import Backend
from vico_eval.engine.decode.in_process import InProcess, Started, check_installed
from vico_eval.engine.decode.probe import TEXTS, Probe
from vico_eval.engine.decode.servers import Servers, read_addresses
from vico_eval.engine.settings import EngineSettings
from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.family import Family, FamilyCheckpoint, FamilyModel
from vico_eval.methods.registry import Method

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GPU_SHARE = 0.8
"""Share of a GPU's memory for vLLM in this process. The rest is for the vision encoder."""


def check_can_decode(settings: EngineSettings, method: Method, family: Family | None = None) -> None:
    """Check that vLLM can decode for a method, before anything is loaded.

    Args:
        settings: settings with `engine=vllm`.
        method: the method to run.
        family: the checkpoint's family; None if not known yet.

    Raises:
        CheckpointError: the family's decoder needs more than prompt embeddings.
        ConfigError: the method acts in the decoder, vLLM is not installed, or `server` holds no address.
    """
    if family is not None and family.needs_positions is not None:
        raise CheckpointError(
            f"engine=vllm can't decode for checkpoint {settings.pretrained!r}: {family.needs_positions}. Pass "
            "engine=transformers."
        )
    if method.decoder is not None:
        raise ConfigError(
            f"method {method.name!r} takes tokens out between the decoder's layers ({type(method.decoder).__name__}), "
            "which vLLM's decoder can't do. Pass engine=transformers, or leave out that part of the method."
        )
    if settings.server is None:
        check_installed()
    else:
        read_addresses(settings.server)


@torch.inference_mode()
def open_servers(
    addresses: str, checkpoint: FamilyCheckpoint, model: FamilyModel, tokenizer: PreTrainedTokenizerBase, stop: str
) -> Backend:
    """Open servers that have a checkpoint's decoder.

    Args:
        addresses: see `EngineSettings.server`.
        model: the model with the checkpoint's embeddings.
        stop: the token that ends an answer.

    Raises:
        ConfigError: a server doesn't respond or has another model.
    """
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    device = model.decoder_device
    probe = Probe(
        checkpoint=checkpoint.name,
        sha256=checkpoint.identity()["sha256"],
        prompts=[(ids, model.embedding(torch.tensor(ids, device=device)).cpu()) for ids in texts],
        end=(stop, cast("int", tokenizer.convert_tokens_to_ids(stop))),
    )
    return Backend(Servers(read_addresses(addresses), probe))


def start_here(settings: EngineSettings, decoder: Path, model: FamilyModel) -> Backend:
    """Start vLLM from this process.

    Args:
        settings: the engine's settings, of which vLLM's are used.
        decoder: a folder written by `vico-eval export-decoder`.
        model: the model that embeds the prompts; vLLM computes in its dtype.

    Raises:
        ConfigError: vLLM can't start.
    """
    device = model.decoder_device
    if device.index:
        raise ConfigError(
            f"engine=vllm in this process runs on the first GPU that it sees, and the model is to run on {device}. Let "
            f"the process see that one alone (CUDA_VISIBLE_DEVICES={device.index}) and leave out device, or start a "
            "server."
        )
    is_on_cpu = device.type == "cpu"
    share = settings.gpu_memory_utilization
    started = Started(
        model=decoder,
        dtype=str(model.embedding.weight.dtype).removeprefix("torch."),
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=GPU_SHARE if share is None and not is_on_cpu else share,
        max_model_len=settings.max_model_len,
    )
    return Backend(InProcess(started, is_on_cpu=is_on_cpu, unused_token=model.image_token_id))
