"""Resumable checkpoints of a training run: which there are, which stay.

A checkpoint is a folder that accelerate wrote and `progress.json`, which is written last: without it the folder is of a
run that was killed while it saved, and does not count.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vico_eval.errors import CheckpointError
from vico_eval.training.flash.config import Saving

_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a checkpoint is."""

    step: int
    """Steps done."""

    held_out: float | None
    """The held-out loss at that step; None where the run was stopped before it was measured."""

    config: dict[str, Any]
    """Of the run; another one can't go on from here."""


class Checkpoints:
    """The checkpoints of one phase of a run, in a folder of its own."""

    def __init__(self, folder: Path, saving: Saving, config: dict[str, Any]) -> None:
        self.folder = folder
        self._saving = saving
        self._config = config

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies, or goes."""
        return self.folder / f"step-{step:07d}"

    def newest(self) -> Progress | None:
        """The last finished checkpoint; None where there is none.

        Raises:
            CheckpointError: it is of a run with another configuration.
        """
        found = self._finished()
        if not found:
            return None
        if different := [name for name, value in self._config.items() if found[-1].config.get(name) != value]:
            raise CheckpointError(
                f"{self.folder} has checkpoints of a run with another {', '.join(different)}. Give this run another "
                "`out`, or restore the configuration to go on with that one."
            )
        return found[-1]

    def finish(self, step: int, held_out: float | None) -> None:
        """Count the checkpoint of `step`, whose other files are there, and remove those that need not stay."""
        progress = Progress(step, held_out, self._config)
        unfinished = self.path(step) / f"{_PROGRESS}.unfinished"
        unfinished.write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(self.path(step) / _PROGRESS)
        found = self._finished()
        best = sorted(found, key=_rank)[: self._saving.keep_best]
        keep = {one.step for one in best} | {step}
        for path in self.folder.glob("step-*"):
            if int(path.name.removeprefix("step-")) not in keep:
                shutil.rmtree(path)

    def _finished(self) -> list[Progress]:
        files = sorted(self.folder.glob(f"step-*/{_PROGRESS}"))
        return [Progress(**json.loads(file.read_text(encoding="utf-8"))) for file in files]


def _rank(progress: Progress) -> tuple[float, int]:
    """Smaller is better; a loss that is unknown or no number comes last."""
    loss = progress.held_out
    return (math.inf if loss is None or math.isnan(loss) else loss), -progress.step
