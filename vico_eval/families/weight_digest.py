"""A digest of a checkpoint's weights that includes every byte of every tensor.

The distribution over files is not included: a checkpoint in one file has the same digest as in shards.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from vico_eval.digests import remembered
from vico_eval.families.weight_files import read_tensors, shapes_of

THREADS = 8
SILENT_S = 5
"""Seconds after which progress is shown."""


def weights_digest(files: Iterable[Path]) -> str:
    """Return a SHA-256 over name, dtype, shape and bytes of every tensor in weight files, in hex."""
    tensors = sorted(entry for file in files for entry in remembered("tensors", file, _tensor_digests).items())
    return sha256("".join(f"{name}\0{digest}\n" for name, digest in tensors).encode()).hexdigest()


def _tensor_digests(file: Path) -> dict[str, str]:
    """Return dtype, shape and SHA-256 of every tensor of a file, by name."""
    tensors = read_tensors(file, shapes_of(file))  # for safetensors, views of the file: nothing is read yet
    size, title = file.stat().st_size, f"digest of {file.name}"
    with (
        tqdm(total=size, unit="B", unit_scale=True, delay=SILENT_S, desc=title) as bar,
        ThreadPoolExecutor(THREADS, thread_name_prefix="digest") as pool,
    ):

        def digest(tensor: Tensor) -> str:
            # hashlib lets other threads run meanwhile.
            found = sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
            bar.update(tensor.nbytes)
            return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} {found}"

        return dict(zip(tensors, pool.map(digest, tensors.values()), strict=True))
