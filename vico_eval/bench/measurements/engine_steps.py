"""How many rows the steps of a decoder have, whoever takes them: transformers' loop or vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass
class Steps:
    """A count that goes on."""

    rows: int = 0
    """Of all steps so far; each makes one token, whether it is kept or not."""


def count_rows(head: nn.Module, steps: Steps) -> None:
    """Count the rows of every forward through a decoder's output layer, which takes hidden states [rows, 1, D]."""

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        steps.rows += len(inputs[0])

    head.register_forward_pre_hook(count)


class VllmSteps:
    """Counts the requests that ran in each of vLLM's steps; has what vLLM asks of a stat logger."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """What still runs behind a step, and what ended in it."""
        if scheduler_stats is not None:
            self._steps.rows += scheduler_stats.num_running_reqs
        if iteration_stats is not None:
            self._steps.rows += len(iteration_stats.finished_requests)

    def log(self) -> None:
        """Nothing is printed."""

    def log_engine_initialized(self) -> None:
        """Nothing is printed."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """It does not sleep."""
