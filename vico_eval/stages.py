"""Which stage of an answer is running, for whoever measures; nothing is noted otherwise.

A context variable: what one thread observes, another thread's work is not part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

METHOD = "method"
"""A method decides or computes."""

Observer = Callable[[str], AbstractContextManager[None]]

_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def stage(name: str) -> AbstractContextManager[None]:
    """What runs inside belongs to a stage."""
    observer = _observer.get()
    return nullcontext() if observer is None else observer(name)


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Inside, each stage runs within what `observer` makes of its name."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
