"""Weight files of a checkpoint and their tensors.

safetensors files are plain data. A pickled file (`.bin`) is only read if the caller allows it, with torch's
`weights_only` loader, which creates plain tensors and runs no code from the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from pickle import UnpicklingError

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.modeling_utils import load_state_dict

from vico_eval.errors import CheckpointError, listed

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED_SINGLE = "pytorch_model.bin"
MAX_NAMED = 8


def is_pickled(file: Path) -> bool:
    """Return whether reading the file means unpickling."""
    return file.suffix == ".bin"


def find_weights(folder: Path, *, allow_pickle: bool = False) -> dict[str, Path]:
    """Return the file of every tensor of a checkpoint, by the tensor's name. safetensors take precedence over pickled
    files.

    Raises:
        CheckpointError: there are no weights, files are missing or incomplete, or there are only pickled ones, which
            are not allowed.
    """
    pickled = ""
    files = _files(folder, INDEX, SINGLE)
    if others := [file.name for file in files if is_pickled(file)]:
        # transformers would decide by the flag alone, and read other files than those that were checked.
        raise CheckpointError(f"{folder / INDEX} names files that are not safetensors: {named(others)}. Fix the index.")
    if not files and allow_pickle:
        files = _files(folder, PICKLED_INDEX, PICKLED_SINGLE)
        pickled = f" As pickled weights: {PICKLED_SINGLE}, or {PICKLED_INDEX} and its shards."
    elif list(folder.glob("*.bin")):
        pickled = (
            " It has pickled weights (.bin), which are not read, because pickles can run code. If you must, pass "
            "allow_pickle=true, which reads only plain tensors from them."
        )
    if not files:
        raise CheckpointError(f"{folder} has no weights: expected {SINGLE}, or {INDEX} and its shards.{pickled}")
    return {name: file for file in files for name in shapes_of(file)}


def shapes_of(file: Path) -> dict[str, list[int]]:
    """Return the shape of every tensor in a file, by name.

    Raises:
        CheckpointError: the file is incomplete, or a pickle of something other than tensors.
    """
    if is_pickled(file):
        return {name: list(tensor.shape) for name, tensor in _unpickle(file, device="meta").items()}
    try:
        with safe_open(file, framework="pt") as opened:  # reads the header only
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a complete safetensors file: {error}. Download it again.") from error


def read_tensors(file: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Read some tensors of a file, by name."""
    if is_pickled(file):
        tensors = _unpickle(file, device="cpu")
        return {name: tensors[name] for name in names}
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in names}


def _files(folder: Path, index_name: str, single: str) -> list[Path]:
    index = folder / index_name
    if (folder / single).is_file():  # takes precedence over an index beside it, as in transformers
        return [folder / single]
    if not index.is_file():
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} has no readable weight_map ({error!r}). Download it again.") from error
    # A file may be a link, as in the hub's cache, but a name must not lead out of the folder.
    if elsewhere := [str(name) for name in names if not _is_plain(name)]:
        raise CheckpointError(
            f"{index} names files outside of its folder: {named(elsewhere)}. Expected files in the same folder; "
            "download it again."
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} is an incomplete checkpoint: {len(missing)} of the {len(names)} weight files in "
            f"{index_name} are missing: {named(missing)}. Download them into that folder."
        )
    return [folder / name for name in names]


def _is_plain(name: object) -> bool:
    """Return whether it is a plain file name on every system, without a path."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name == PurePosixPath(name).name == PureWindowsPath(name).name
    )


def _unpickle(file: Path, *, device: str) -> dict[str, Tensor]:
    try:
        tensors = load_state_dict(file, map_location=device, weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{file} can't be read as pickled tensors: {error} Download it again, or convert it to safetensors."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{file} contains something other than named tensors; expected a model's state dict.")
    return tensors


def named(names: Iterable[str], separator: str = ", ") -> str:
    """Return the first few names in order, and the number of others."""
    return listed(sorted(names), MAX_NAMED, separator)
