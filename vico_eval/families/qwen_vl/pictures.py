"""Inputs of Qwen-VL's encoder: an image, or a few video frames that share their visual tokens.

transformers' processors resize images and divide them into patches of bytes. Normalisation, a scale and shift per
channel, happens on the encoder's device, so that only bytes are transferred.

Shapes: patches = those of an image, in groups of 2 x 2 that are merged; values = channels * frames * height * width of
a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from torch import Tensor

from vico_eval.families.family import Picture


@dataclass(frozen=True, eq=False)
class QwenPicture(Picture):
    """An image, or a temporal patch of a video. `pieces` is [1, patches, values]."""

    number: int | None = None
    """Number of the temporal patch within its video, from 0; None for an image."""

    seconds: float = 0.0
    """Time between temporal patches of the video."""

    @property
    def is_film(self) -> bool:
        """Whether it is part of a video."""
        return self.number is not None

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens."""
        return self.columns * self.rows


def picture_of(
    patches: Tensor, grid: tuple[int, int], merge: int, *, number: int | None = None, seconds: float = 0.0
) -> QwenPicture:
    """Make a picture from patches [patches, values], uint8, in a grid of rows and columns.

    Args:
        patches: the picture's patches.
        grid: rows and columns of patches.
        merge: patches along a visual token's side.
        number, seconds: see `QwenPicture`.
    """
    pieces = np.ascontiguousarray(patches.numpy())[None]
    rows, columns = (side // merge for side in grid)
    digest = sha256(f"{rows} {columns} {number is not None}".encode() + pieces.tobytes()).digest()
    return QwenPicture(pieces, columns, rows, (digest,), number=number, seconds=seconds)
