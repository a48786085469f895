"""Labels for ViCO's stage 2, from comparing a loss ratio with a percentile of the ratios before it."""

from __future__ import annotations

from collections import deque

import numpy as np
from torch import Tensor


class PercentileWindow:
    """The k-th percentile of a sliding window of loss ratios.

    A percentile depends only on the order of the ratios, so outliers and the epsilon that keeps ratios finite hardly
    affect it.

    Args:
        percentile: k, in (0, 100); k percent of the labels are *compress* in the long run.
        size: number of ratios in the window.
    """

    def __init__(self, percentile: float, size: int) -> None:
        self.percentile = percentile
        self.window: deque[float] = deque(maxlen=size)

    def keep(self, ratio: float) -> bool | None:
        """Add one ratio and return its label.

        Returns:
            True (keep the tile at full length) if the ratio is at or above the percentile of the ratios before it,
            else False; None for the first ratio.
        """
        label = ratio >= self.threshold if self.window else None
        self.window.append(ratio)
        return label

    @property
    def threshold(self) -> float:
        """tau, the percentile of the window with linear interpolation; the window must not be empty."""
        return float(np.percentile(np.fromiter(self.window, dtype=np.float64), self.percentile))


def loss_ratio(low: Tensor, high: Tensor, epsilon: float) -> Tensor:
    """Return how much worse an answer gets under compression: (low + epsilon) / (high + epsilon).

    Args:
        low, high: [samples], consistency losses in nats, at least 0 up to rounding.
        epsilon: keeps the ratio finite where the uncompressed answer equals the reference's.
    """
    return (low.clamp(min=0) + epsilon) / (high.clamp(min=0) + epsilon)
