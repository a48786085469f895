"""Mark which stage of an answer is running, for an observer that measures it; without one, marking does nothing.

The observer is a context variable, so one thread's measurement does not include another thread's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

METHOD = "method"
"""Stage of a method's own computation."""

Observer = Callable[[str], AbstractContextManager[None]]

_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def stage(name: str) -> AbstractContextManager[None]:
    """A context manager whose body counts as stage `name`."""
    observer = _observer.get()
    return nullcontext() if observer is None else observer(name)


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Within this context, each stage runs inside the context manager that `observer` returns for its name."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
