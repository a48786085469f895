"""A run's position in a stream of rows, so that a resumed run does not read earlier rows again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vico_eval.training.data.reading.row_stream import Mark


class Places:
    """The marks of this process's lanes at the start of each window of steps, from the current window on."""

    def __init__(self, window_steps: int) -> None:
        """Start at the first step of a run."""
        self._window_steps = window_steps
        self._marks: dict[int, dict[int, Mark]] = {}
        self._reached = 0

    def note(self, window: int, marks: Mapping[int, Mark]) -> None:
        """Record the mark of each lane at the start of a window; called by the planning thread."""
        self._marks[window] = dict(marks)

    def reach(self, step: int) -> None:
        """Drop the marks before the window of `step`, the step that is trained on now."""
        self._reached = step // self._window_steps
        for window in list(self._marks):  # a copy, because the planning thread adds marks meanwhile
            if window < self._reached:
                del self._marks[window]

    def before(self, window: int, lane: int) -> tuple[int, Mark]:
        """Return the last window, up to `window`, with a mark of a lane, and that mark; by default the lane's start.

        A run that resumes with another number of processes has lanes without marks.
        """
        known = [one for one, marks in self._marks.items() if one <= window and lane in marks]
        return (max(known), self._marks[max(known)][lane]) if known else (0, Mark())

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers, strings and lists."""
        marks = self._marks.get(self._reached, {})
        return {"window": self._reached, "lanes": {str(lane): list(mark) for lane, mark in marks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self._reached = state["window"]
        self._marks = {self._reached: {int(lane): Mark(*numbers) for lane, numbers in state["lanes"].items()}}
