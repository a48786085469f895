"""Pictures as Qwen-VL's encoder takes them: an image, or a few frames of a film that share their visual tokens.

transformers' processors resize them and lay them out in patches, in bytes; what is left, a scale and a shift for each
channel, is done beside the encoder, so that bytes travel to its device.

Shapes: patches = those of a picture, merged 2 x 2 ones side by side; values = channels * frames * height * width of a
patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from torch import Tensor

from vico_eval.families.family import Picture


@dataclass(frozen=True, eq=False)
class QwenPicture(Picture):
    """An image, or what of a film lies within one temporal patch. `pieces` is [1, patches, values]."""

    number: int | None = None
    """Of the temporal patch within its film, from 0; None of an image."""

    seconds: float = 0.0
    """From one temporal patch of the film to the next."""

    @property
    def is_film(self) -> bool:
        """Whether it is of a film."""
        return self.number is not None

    @property
    def num_tokens(self) -> int:
        """Visual tokens of the picture."""
        return self.columns * self.rows


def picture_of(
    patches: Tensor, grid: tuple[int, int], merge: int, *, number: int | None = None, seconds: float = 0.0
) -> QwenPicture:
    """A picture of patches [patches, values], uint8, in a grid of rows and columns.

    Args:
        patches: of the picture.
        grid: rows and columns of patches.
        merge: patches along a visual token's side.
        number, seconds: as of `QwenPicture`.
    """
    pieces = np.ascontiguousarray(patches.numpy())[None]
    rows, columns = (side // merge for side in grid)
    digest = sha256(f"{rows} {columns} {number is not None}".encode() + pieces.tobytes()).digest()
    return QwenPicture(pieces, columns, rows, (digest,), number=number, seconds=seconds)
