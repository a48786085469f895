"""Device, dtype and attention kernel of a model, checked before anything is loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from vico_eval.errors import ConfigError

ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
FLASH_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def check_attention(name: str, *, is_on_cpu: bool, dtype: torch.dtype | str | None = None) -> None:
    """Raise ConfigError if `name` isn't an attention kernel, or can't run here or in `dtype`."""
    if name not in ATTENTION:
        raise ConfigError(f"unknown attn_implementation {name!r}; known: {', '.join(ATTENTION)}.")
    package = FLASH_PACKAGES.get(name)
    if package is None:
        return
    # Without the package, transformers may download compiled kernels, which are code from the hub.
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"attn_implementation={name!r} can't be used here: {package} is not installed. Install it "
            "(pip install 'vico-eval[flash]'), or pass sdpa."
        )
    if is_on_cpu:
        raise ConfigError(f"attn_implementation={name!r} needs a GPU, but the model runs on the CPU; pass sdpa.")
    if dtype is torch.float32:
        raise ConfigError(f"attn_implementation={name!r} can't compute in float32; pass dtype=bfloat16, or sdpa.")


def check_device(device: str | None) -> None:
    """Raise ConfigError if `device` isn't a device of this machine."""
    if device is None:
        return
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device!r} is not a device name; expected cpu, cuda, cuda:0, mps, ...") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={device!r} was requested, but torch sees {torch.cuda.device_count()} GPUs here. "
            "Pass device=cpu, or install a torch build and driver that fit your GPU."
        )
    if wanted.type == "meta" or (wanted.type == "cpu" and wanted.index):
        raise ConfigError(f"device={device!r} can't compute; expected cpu, cuda, cuda:0, mps, ...")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device={device!r} is not available: {str(error).splitlines()[0]}") from error


def check_device_map(device_map: str | dict[str, Any] | None) -> None:
    """Raise ConfigError if a model can't be distributed this way over this machine's devices."""
    if device_map is None or device_map in DEVICE_MAPS:
        return
    for place in device_map.values() if isinstance(device_map, dict) else (device_map,):
        check_device(f"cuda:{place}" if isinstance(place, int) else None if place == "disk" else str(place))


def torch_dtype(name: str) -> torch.dtype | str:
    """Return the dtype of that name, or "auto". Raises ConfigError if it is unknown."""
    known = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise ConfigError(f"unknown dtype {name!r}; known: {', '.join(known)}.")
    return known[name]  # type: ignore[return-value]
