"""Videos stored as a folder of frames, one image file per frame.

Source: `read_frames_folder` of InternVL's training code, for the order of the frames. Differs: files that aren't images
        are ignored (there they are errors); frames without a number in their names are in natural order (there in the
        file system's order); frames are selected as in a video file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from vico_eval.engine.media import PickFrames, load_image
from vico_eval.errors import MediaError
from vico_eval.families.frame_choice import Clip, frame_indices

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File name suffixes of frames, in upper or lower case."""


def is_folder(source: str | Path | bytes) -> bool:
    """Return whether a video is a folder of frames."""
    return not isinstance(source, bytes) and os.path.isdir(source)  # noqa: PTH112 (a Path raises for odd names)


def read_frame_folder(
    folder: str | Path | bytes,
    num_frames: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    pick: PickFrames = frame_indices,
) -> list[Image.Image]:
    """Read frames of a folder as RGB, evenly spaced unless `pick` selects others; see `read_folder_clip`."""

    def choose(total: int, _: float | None) -> list[int]:
        return pick(total, num_frames)

    return read_folder_clip(folder, choose, start_s=start_s, end_s=end_s).frames


def read_folder_clip(
    folder: str | Path | bytes,
    choose: Callable[..., list[int]],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Clip:
    """Read the frames of a folder that `choose` selects, like `read_clip`. Only these files are opened.

    Raises:
        MediaError: the folder has no frames or can't be read, a frame can't be read, or an interval in seconds is
            requested, which a folder can't have.
    """
    assert not isinstance(folder, bytes), "bytes are no folder"
    if start_s is not None or end_s is not None:
        raise MediaError(
            f"The folder of frames {folder} has no times, so it can't be cut to an interval in seconds. Leave out the "
            "interval, or remove frames."
        )
    try:
        names = [entry.name for entry in Path(folder).iterdir() if entry.is_file()]
    except OSError as error:
        raise MediaError(f"The folder of frames {folder} can't be read: {error}.") from error
    frames = in_order(name for name in names if name.lower().endswith(FRAME_SUFFIXES) and not name.startswith("."))
    if not frames:
        raise MediaError(f"The folder {folder} has no frames; expected files that end in {', '.join(FRAME_SUFFIXES)}.")
    places = choose(len(frames), None)
    opened = [load_image(Path(folder) / frames[place]) for place in places]
    return Clip(opened, places, total=len(frames), fps=None)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort the names of frames by time: by the number at their end (`clip_12.jpg`), as in InternVL's code.

    If not all names end in `_` and a number, they are in natural order, in which runs of digits count as numbers.
    """
    numbered = {name: re.search(r"_([0-9]+)\.[^.]*$", name) for name in names}
    last = {name: int(found[1]) if found else 0 for name, found in numbered.items()}
    if not all(numbered.values()):
        last = dict.fromkeys(numbered, 0)
    return sorted(numbered, key=lambda name: (last[name], _natural(name)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(piece) if piece.isdecimal() else -1, piece) for piece in re.split(r"([0-9]+)", name)]
