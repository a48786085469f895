"""The ratio of two speeds measured in paired rounds, with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from vico_eval.report.tables.grid import DASH

CONFIDENCE = 0.95

UNSOUND = "*"
"""Marks an unreliable number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """The ratio of two speeds, paired by round."""

    value: float
    """Geometric mean over the rounds; NaN without rounds."""

    low: float
    """Lower end of the 95% interval, from Student's t over the rounds' logarithms; NaN with fewer than two rounds."""

    high: float
    num_rounds: int

    def as_record(self) -> dict[str, Any]:
        """The fields for a JSON file, with None in place of NaN."""
        return {name: None if value != value else value for name, value in asdict(self).items()}

    def text(self, *, is_sound: bool = True) -> str:
        """The ratio as printed in tables, with its interval in brackets if known, and a star if the value is
        unreliable."""
        if math.isnan(self.value):
            return DASH
        has_interval = not math.isnan(self.low) and self.low != self.high
        interval = f" [{self.low:.2f}, {self.high:.2f}]" if has_interval else ""
        return f"{self.value:.2f}{interval}{'' if is_sound else UNSOUND}"


def mean_ratio(ratios: Sequence[float]) -> Ratio:
    """The geometric mean of a ratio over rounds, with its interval.

    Args:
        ratios: [rounds], positive.
    """
    if not ratios:
        return Ratio(value=math.nan, low=math.nan, high=math.nan, num_rounds=0)
    logs = np.log(ratios)
    mean, margin = float(logs.mean()), math.nan
    if len(logs) > 1:
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1))
        margin = quantile * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return Ratio(value=math.exp(mean), low=math.exp(mean - margin), high=math.exp(mean + margin), num_rounds=len(logs))
