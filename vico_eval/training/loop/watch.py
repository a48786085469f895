"""The output of a running training: a progress line, `log.jsonl`, and trackers such as TensorBoard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vico_eval.terminal import SafeConsole
from vico_eval.training.loop.finite import as_json

LOG = "log.jsonl"


class Watch:
    """Collects a step's numbers on every process, aggregates them over all, and reports them from the first."""

    def __init__(self, accelerator: Accelerator, out: Path) -> None:
        """
        Args:
            accelerator: the run's accelerator, with its trackers.
            out: the folder for `log.jsonl`.
        """
        self._accelerator = accelerator
        self._log = out / LOG
        self._console = SafeConsole(stderr=True)
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._names: tuple[str, ...] = ()
        self._phase = ""
        self._steps_before = 0
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def declare(self, *names: str) -> None:
        """Declare the names to aggregate; every process must declare all of them, even if it adds no value."""
        self._names = names

    def add(self, name: str, value: float) -> None:
        """Add a value of `name`; the mean over a step and all processes is shown, for `tokens` the sum per second."""
        self._sums[name][0] += value
        self._sums[name][1] += 1

    @contextmanager
    def phase(self, name: str, first: int, last: int, steps_before: int) -> Iterator[None]:
        """Show a progress line over a phase's steps; trackers number them after those of earlier phases."""
        self._phase, self._steps_before = name, steps_before
        columns = (
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
            *(TimeRemainingColumn(), TextColumn("{task.fields[numbers]}")),
        )
        with Progress(*columns, console=self._console, disable=not self._accelerator.is_main_process) as progress:
            self._progress = progress
            self._task = progress.add_task(name, completed=first, total=last, numbers="")
            yield
        self._progress = self._task = None

    def step(self, step: int, learning_rate: float, seconds: float, shown: Mapping[str, float] | None = None) -> None:
        """Report a finished step: its means, the learning rate and the time it took."""
        means = self._means()
        tokens = means.pop("tokens", None)
        entry = {"phase": self._phase, "step": step, **means, **(shown or {}), "learning_rate": learning_rate}
        entry["seconds"] = round(seconds, 3)
        if tokens is not None:
            entry["tokens_per_s"] = round(tokens / max(seconds, 1e-9), 1)
        self.write(entry)
        if self._progress is not None and self._task is not None:
            numbers = "  ".join(
                f"{name} {entry[name]:.4g}" for name in ("loss", "accuracy", "tokens_per_s") if name in entry
            )
            self._progress.update(self._task, advance=1, numbers=numbers)

    def histogram(self, name: str, values: Sequence[float], step: int) -> None:
        """Write a distribution's percentiles to the log and its full histogram to TensorBoard."""
        if not values:
            return
        percentiles = {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (1, 10, 25, 50, 75, 90, 99)}
        self.write({"phase": self._phase, "step": step, name: percentiles})
        for tracker in self._accelerator.trackers:
            if tracker.name == "tensorboard" and self._accelerator.is_main_process:
                tracker.writer.add_histogram(
                    f"{self._phase}/{name}", np.asarray(values), global_step=self._steps_before + step
                )

    def held_out(self, step: int, loss: float) -> None:
        """Write a checkpoint's loss on held-out samples."""
        self.write({"phase": self._phase, "step": step, "held_out": loss})

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line to the log and send its numbers to the trackers."""
        if self._accelerator.is_main_process:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(as_json(entry) + "\n")
        if "step" in entry:
            numbers = {
                f"{entry['phase']}/{name}": value
                for name, value in entry.items()
                if isinstance(value, (int, float)) and name != "step"
            }
            self._accelerator.log(numbers, step=self._steps_before + entry["step"])

    def say(self, message: str) -> None:
        """Print a message to the terminal, from the first process."""
        if self._accelerator.is_main_process:
            self._console.print(message)

    def _means(self) -> dict[str, float]:
        own = torch.tensor([self._sums[name] for name in self._names], dtype=torch.float64)
        # Devices without float64 sum in float32; counts stay exact up to 16 million.
        summed = self._accelerator.reduce(own.float().to(self._accelerator.device), reduction="sum").cpu()
        self._sums.clear()
        found = {name: (float(total), float(count)) for name, (total, count) in zip(self._names, summed, strict=True)}
        tokens = {"tokens": found["tokens"][0]} if "tokens" in found else {}
        return {name: total / count for name, (total, count) in found.items() if count and name != "tokens"} | tokens
