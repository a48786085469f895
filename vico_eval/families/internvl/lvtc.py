"""LVTC's projectors: the parts of an InternVL-X checkpoint besides its connector. `methods/lvtc.py` applies them.

Source: InternVL-X, section 3.2 and algorithm 1. Its authors released no code for it, so this is our reading of the
        paper.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.connectors import HighConnector


class LVTCProjectors(nn.Module):
    """The projectors besides the connector: T - 1 with low resolution and one with high resolution.

    Args:
        num_low_resolution: T, including the connector's own projection.
        high_block: side of the square of vision tokens that form a token of high resolution.
        low_resolution: creates a projector of the connector's kind; each has its own weights.
        vision_width: C.
        decoder_width: D.
        version: version of the pixel shuffle, as in the connector.
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
        """Let training start from the decoder without them: set every projection to zero; upsampling remains.

        Raises:
            ConfigError: a projector isn't InternVL's, so its output isn't computed by a single layer.
        """
        for projector in (*self.low_resolution, self.high_resolution):
            if not isinstance(projector, HighConnector):
                raise ConfigError(
                    f"a projection of {type(projector).__name__} can't start at zero; expected InternVL's connector."
                )
            nn.init.zeros_(projector.linear_2.weight)
            nn.init.zeros_(projector.linear_2.bias)
