"""Counting the rows of decode steps, in transformers' loop and in vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass
class Steps:
    """A running count of rows."""

    rows: int = 0
    """The total over all steps so far; each row makes one token, whether or not it is kept."""


def count_rows(head: nn.Module, steps: Steps) -> None:
    """Count the rows of every forward pass through a decoder's output layer, with hidden states [rows, 1, D]."""

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        steps.rows += len(inputs[0])

    head.register_forward_pre_hook(count)


class VllmSteps:
    """Counts the requests in each of vLLM's steps, with the interface of a vLLM stat logger."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Add the requests that still run after a step and those that ended in it."""
        if scheduler_stats is not None:
            self._steps.rows += scheduler_stats.num_running_reqs
        if iteration_stats is not None:
            self._steps.rows += len(iteration_stats.finished_requests)

    def log(self) -> None:
        """Print nothing."""

    def log_engine_initialized(self) -> None:
        """Print nothing."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Ignore the sleep state; the engine never sleeps."""
