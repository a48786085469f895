"""Labels of ViCO's stage 2: a loss ratio is compared with a percentile of the ratios before it."""

from __future__ import annotations

from collections import deque

import numpy as np
from torch import Tensor


class PercentileWindow:
    """The k-th percentile of a sliding window of loss ratios.

    A percentile sees only the order of the ratios, so neither outliers nor the epsilon that keeps them finite move it.

    Args:
        percentile: k, in (0, 100); k percent of the labels are *compress* in the long run.
        size: ratios in the window.
    """

    def __init__(self, percentile: float, size: int) -> None:
        self.percentile = percentile
        self.window: deque[float] = deque(maxlen=size)

    def keep(self, ratio: float) -> bool | None:
        """Take in one ratio.

        Returns:
            True (keep the tile at full length) iff it is at or above the percentile of those before it; None for the
            first one.
        """
        label = ratio >= self.threshold if self.window else None
        self.window.append(ratio)
        return label

    @property
    def threshold(self) -> float:
        """tau: the percentile of the window, linearly interpolated; of one with a ratio at least."""
        return float(np.percentile(np.fromiter(self.window, dtype=np.float64), self.percentile))


def loss_ratio(low: Tensor, high: Tensor, epsilon: float) -> Tensor:
    """How much worse an answer gets when something is compressed: (low + epsilon) / (high + epsilon).

    Args:
        low, high: [docs], consistency losses in nats, at least 0 up to rounding.
        epsilon: keeps the ratio finite where the uncompressed answer equals the reference's.
    """
    return (low.clamp(min=0) + epsilon) / (high.clamp(min=0) + epsilon)
