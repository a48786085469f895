"""Thresholds of routing rules."""

from __future__ import annotations

from vico_eval.errors import ConfigError


def check_thresholds(relative: float | None, absolute: float | None) -> None:
    """Raises ConfigError unless both thresholds are None or in [0, 1]."""
    for name, value in (("relative_threshold", relative), ("absolute_threshold", absolute)):
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value}; expected a probability in [0, 1].")
