"""Where in a stream of rows a run is, so that one that goes on reads nothing of what lies before again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vico_eval.training.data.reading.row_stream import Mark


class Places:
    """The marks of this process's lanes at the beginning of each window of steps, from the last that was reached on."""

    def __init__(self, window_steps: int) -> None:
        """Of a run from its first step."""
        self._window_steps = window_steps
        self._marks: dict[int, dict[int, Mark]] = {}
        self._reached = 0

    def note(self, window: int, marks: Mapping[int, Mark]) -> None:
        """Keep where each lane is, by its number, when a window begins; called by the thread that plans ahead."""
        self._marks[window] = dict(marks)

    def reach(self, step: int) -> None:
        """Forget what lies before the window of a step, which is trained on now."""
        self._reached = step // self._window_steps
        for window in list(self._marks):  # a copy: the thread that plans ahead adds to them
            if window < self._reached:
                del self._marks[window]

    def before(self, window: int, lane: int) -> tuple[int, Mark]:
        """The last known window up to `window` at which it is known where a lane is, and where; its beginning at worst.

        A run that goes on with another number of processes has lanes that it knows nothing of.
        """
        known = [one for one, marks in self._marks.items() if one <= window and lane in marks]
        return (max(known), self._marks[max(known)][lane]) if known else (0, Mark())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain numbers, words and lists."""
        marks = self._marks.get(self._reached, {})
        return {"window": self._reached, "lanes": {str(lane): list(mark) for lane, mark in marks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._reached = state["window"]
        self._marks = {self._reached: {int(lane): Mark(*numbers) for lane, numbers in state["lanes"].items()}}
