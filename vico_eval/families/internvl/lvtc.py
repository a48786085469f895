"""LVTC's projectors: what an InternVL-X checkpoint holds beyond its connector. `methods/lvtc.py` says when they act.

Source: InternVL-X, section 3.2 and algorithm 1. Its authors released no code of it, so this is our reading of the
        paper.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.connectors import HighConnector


class LVTCProjectors(nn.Module):
    """The projectors beyond the connector: T - 1 of low resolution and one of high resolution.

    Args:
        num_low_resolution: T, the connector's own projection included.
        high_block: side of the square of vision tokens that one token of high resolution is made of.
        low_resolution: makes a new projector of the connector's kind; each has its own weights.
        vision_width: C.
        decoder_width: D.
        version: of the pixel shuffle, as the connector's.
    """

    def __init__(
        self,
        num_low_resolution: int,
        high_block: int,
        low_resolution: Callable[[], nn.Module],
        vision_width: int,
        decoder_width: int,
        version: str = "v2",
    ) -> None:
        super().__init__()
        self.low_resolution = nn.ModuleList(low_resolution() for _ in range(num_low_resolution - 1))
        self.high_resolution = HighConnector(vision_width, decoder_width, high_block, version)

    def zero_outputs(self) -> None:
        """Let training start from the decoder without them: every projection is zero, upsampling remains.

        Raises:
            ConfigError: a projector of another kind than InternVL's, whose output no single layer makes.
        """
        for projector in (*self.low_resolution, self.high_resolution):
            if not isinstance(projector, HighConnector):
                raise ConfigError(
                    f"a projection of {type(projector).__name__} can't start at zero; expected InternVL's connector."
                )
            nn.init.zeros_(projector.linear_2.weight)
            nn.init.zeros_(projector.linear_2.bias)
