"""Counting and listing skipped samples, and ending a run that skipped too many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vico_eval.errors import UserError
from vico_eval.training.data.stream import Skipped, StepBatch

NUM_EXAMPLES = 3
"""The maximum number of skipped samples of each kind that an error names."""


class SkippedTooMany(UserError):
    """The share of skipped samples exceeds the limit."""


class SkipCount:
    """Counts a process's samples, and lists the skipped ones in `skipped.rank<r>.jsonl`."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        """Count from zero; a list left in `folder` by an earlier run is overwritten unless `load_state_dict`
        follows."""
        self.num_samples = 0
        self.num_skipped = 0
        self._kinds: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}
        self._folder = folder
        self._path = folder / f"skipped.rank{rank}.jsonl"
        self._num_bytes = 0

    def count(self, batch: StepBatch) -> None:
        """Count a step's samples and append the skipped ones to the list on disk."""
        lines = b""
        for sample in (sample for micro_batch in batch.micro_batches for sample in micro_batch):
            self.num_samples += 1
            if isinstance(sample, Skipped):
                self._add(sample.kind, 1, [f"{sample.key}: {sample.reason}"])
                entry = {"step": batch.step, "key": sample.key, "kind": sample.kind, "reason": sample.reason}
                lines += json.dumps(entry).encode() + b"\n"
        if lines:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab" if self._num_bytes else "wb") as file:
                file.write(lines)
            self._num_bytes += len(lines)

    def check(self, max_share: float, others: Iterable[Mapping[str, Any]] = ()) -> None:
        """Raise SkippedTooMany if more than `max_share` of the samples were skipped.

        Args:
            max_share: in [0, 1].
            others: the `state_dict` of each other process, to be added to this one's.
        """
        total = SkipCount(self._folder)
        for state in (self.state_dict(), *others):
            total._include(state)
        if total.num_skipped <= max_share * total.num_samples:
            return
        kinds = "; ".join(
            f"{number} {kind}, such as {' | '.join(total._examples[kind])}"
            for kind, number in sorted(total._kinds.items(), key=lambda item: (-item[1], item[0]))
        )
        raise SkippedTooMany(
            f"{total.num_skipped} of {total.num_samples} samples were skipped, "
            f"{total.num_skipped / total.num_samples:.2%}; expected at most {max_share:.2%} (max_skipped_share). "
            f"By kind: {kinds}. All of them are listed in {self._folder / 'skipped.rank*.jsonl'}. Fix the data or "
            "raise the share."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers, strings and lists."""
        return {
            "num_samples": self.num_samples,
            "num_skipped": self.num_skipped,
            "kinds": dict(self._kinds),
            "examples": {kind: list(examples) for kind, examples in self._examples.items()},
            "num_bytes": self._num_bytes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; lines listed after that checkpoint are removed, because they will be written again."""
        self.num_samples = self.num_skipped = 0
        self._kinds, self._examples = {}, {}
        self._include(state)
        self._num_bytes = 0
        if self._path.exists():
            self._num_bytes = min(int(state["num_bytes"]), self._path.stat().st_size)
            with self._path.open("r+b") as file:
                file.truncate(self._num_bytes)

    def _include(self, state: Mapping[str, Any]) -> None:
        self.num_samples += state["num_samples"]
        for kind, number in state["kinds"].items():
            self._add(kind, number, state["examples"][kind])

    def _add(self, kind: str, number: int, examples: list[str]) -> None:
        self.num_skipped += number
        self._kinds[kind] = self._kinds.get(kind, 0) + number
        kept = self._examples.setdefault(kind, [])
        kept += examples[: NUM_EXAMPLES - len(kept)]
