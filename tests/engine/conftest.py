"""Small videos whose frames can be told apart."""

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shown() -> Callable[..., list[int]]:
    """Numbers of the frames of `write_video` in given pictures; 8 greys apart is far more than what encoding costs."""
    return lambda frames: [round(np.asarray(frame).mean() / 8) for frame in frames]
