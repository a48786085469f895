"""Why a sample is left out of a training."""

from __future__ import annotations

from vico_eval.errors import UserError


class CorruptSample(UserError):
    """A sample can't be used. `kind` is what it is counted under, the message says what is wrong with it."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
