"""Conversion of a decoded video frame to an upright RGB image.

The colour coding and the orientation of the camera are metadata of a frame. A decoder leaves both to its caller.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

_MATRICES = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
"""FFmpeg's numbers of the colour matrices that swscale supports besides BT.601: BT.709, FCC, SMPTE 240M, BT.2020."""

_BT601 = 5


def upright_rgb(frame: av.VideoFrame) -> Image.Image:
    """Return a frame's image, rotated by its display matrix, with the colours of its own matrix and range.

    Without a matrix, BT.601 is assumed, and without a range, that of the pixel format, as in swscale, decord and
    OpenCV, whatever the size. High dynamic range isn't tone-mapped.
    """
    return Image.fromarray(np.ascontiguousarray(_turned(_rgb(frame), _display_matrix(frame))))


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return the stored pixels as RGB, [H, W, 3], uint8."""
    if frame.format.is_rgb or frame.format.has_palette:
        return np.asarray(frame.to_ndarray(format="rgb24"))
    # Before version 17, PyAV sets matrix and range only if they differ from the target's; otherwise swscale's default
    # remains, BT.601 in limited range. So that default is passed as the target's, which is unused for RGB.
    frame.colorspace = _MATRICES.get(int(frame.colorspace), _BT601)
    rgb = frame.reformat(
        format="rgb24",
        dst_colorspace=Colorspace.ITU601,
        src_color_range=int(frame.color_range),
        dst_color_range=ColorRange.MPEG,
    )
    return np.asarray(rgb.to_ndarray())


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return (a, b, c, d): a pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift and a factor."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # other side data that this version of PyAV doesn't know
        return _quarter_turns(frame)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    return a, b, c, d


def _quarter_turns(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return the matrix from the rotation angle alone, which doesn't include mirroring. PyAV has the angle since
    version 14."""
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counterclockwise
    return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[turns]


def _turned(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Return the pixels rotated by the nearest quarter turn and mirrored if the matrix mirrors, [H, W, 3] or [W, H,
    3]."""
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        to_the_left, upwards = a < 0, d < 0
    else:
        pixels = pixels.swapaxes(0, 1)
        to_the_left, upwards = c < 0, b < 0
    return pixels[:: -1 if upwards else 1, :: -1 if to_the_left else 1]
