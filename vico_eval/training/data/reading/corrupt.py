"""The exception for samples that can't be used in training."""

from __future__ import annotations

from vico_eval.errors import UserError


class CorruptSample(UserError):
    """A sample can't be used. `kind` is the category it is counted in; the message describes the problem."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
