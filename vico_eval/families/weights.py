"""Loading a checkpoint's weights into transformers' classes, for all families. Errors name tensors that don't match."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.checkpoint import CheckpointFiles
from vico_eval.families.placement import check_attention, check_device, check_device_map, torch_dtype
from vico_eval.families.weight_files import MAX_NAMED, is_pickled, named

M = TypeVar("M", bound=PreTrainedModel)


def load_placed(
    model_class: type[M],
    checkpoint: CheckpointFiles,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str = "sdpa",
) -> M:
    """Load a model on its device, in evaluation mode.

    Args:
        model_class: a class that is created from the checkpoint's configuration.
        checkpoint: a checkpoint with complete files.
        dtype: "auto" (the checkpoint's own), "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", "cuda:1", ...; None leaves the model on the CPU or to `device_map`.
        device_map: transformers' and accelerate's ("auto", "balanced", a dict); instead of `device`.
        attn_implementation: attention kernel of encoder and decoder.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape; the message names them.
        ConfigError: the device doesn't exist, the dtype or attention kernel is unknown, or `device` is used with
            `device_map`.
    """
    if device is not None and device_map is not None:
        raise ConfigError("got both device and device_map; pass one. device_map places all parts itself.")
    check_device(device)
    check_device_map(device_map)
    computed_in = torch_dtype(dtype)
    check_attention(
        attn_implementation,
        is_on_cpu=device_map is None and torch.device(device or "cpu").type == "cpu",
        dtype=checkpoint.config.dtype if computed_in == "auto" else computed_in,
    )
    model = load_weights(
        model_class,
        checkpoint,
        dtype=computed_in,
        # Weights are loaded directly to the device. Otherwise processes that share a host would fill its memory.
        device_map=device_map if device is None else {"": torch.device(device)},
        attn_implementation=attn_implementation,
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def load_weights(model_class: type[M], checkpoint: CheckpointFiles, *, attn_implementation: str, **options: Any) -> M:
    """Load a model with a checkpoint's weights.

    Args:
        model_class: a class that is created from the checkpoint's configuration.
        checkpoint: a checkpoint with complete files.
        attn_implementation: attention kernel, one that can run here.
        **options: further arguments of `from_pretrained` (dtype, device_map) or of the class.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape; the message names them.
        ConfigError: the attention kernel can't be loaded.
    """
    try:
        loaded: Any = model_class.from_pretrained(
            checkpoint.folder,
            config=checkpoint.config,
            attn_implementation=attn_implementation,
            use_safetensors=not any(map(is_pickled, checkpoint.weights.values())),
            weights_only=True,
            ignore_mismatched_sizes=True,  # so that the message below can name all of them
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=True,
            **options,
        )
    except ImportError as error:  # flash-attn is installed but can't be loaded
        raise ConfigError(f"attn_implementation={attn_implementation!r} can't be used here: {error}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} can't be read: {error}. Download them again."
        ) from error
    model: M = loaded[0]
    _refuse_wrong_weights(checkpoint, loaded[1])
    return model


def _refuse_wrong_weights(checkpoint: CheckpointFiles, info: dict[str, Any]) -> None:
    problems = []
    if info["missing_keys"]:
        problems.append(f"missing: {named(info['missing_keys'])}")
    if info["unexpected_keys"]:
        problems.append(f"unexpected: {named(info['unexpected_keys'])}")
    for name, found, expected in info["mismatched_keys"]:
        problems.append(f"{name} has shape {list(found)}, expected {list(expected)}")
    if info.get("error_msgs"):
        problems.append("; ".join(info["error_msgs"]))
    if problems:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} do not fit its config.json: {'; '.join(problems[:MAX_NAMED])}. "
            "Names are those of this package's modules. Use weights and config of the same checkpoint."
        )
