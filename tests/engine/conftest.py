"""Small videos whose frames can be told apart."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Writes a video whose frame i is of one grey, 8 * i."""

    def write(path: Path, num_frames: int, *, fps: int = 10, size: int = 32) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=fps)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for index in range(num_frames):
                pixels = np.full((size, size, 3), 8 * index, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def shown() -> Callable[..., list[int]]:
    """Numbers of the frames of `write_video` in given pictures; 8 greys apart is far more than what encoding costs."""
    return lambda frames: [round(np.asarray(frame).mean() / 8) for frame in frames]
