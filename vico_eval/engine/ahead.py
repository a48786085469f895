"""Requests are prepared in threads, ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vico_eval.engine.requests import DeferredRequest, Request
from vico_eval.errors import DocumentError

AnyRequest = TypeVar("AnyRequest", bound=Request | DeferredRequest)
P = TypeVar("P")


def prepare_ahead(
    prepare: Callable[[AnyRequest], P],
    requests: Iterable[AnyRequest],
    *,
    workers: int = 2,
    ahead: int | None = None,
) -> Iterator[P | DocumentError]:
    """Prepared requests in their order, with threads reading ahead of whoever consumes them.

    In the place of a request that could not be prepared, whatever the reason, is the error that names it.

    Args:
        prepare: a `Preprocessor`, or another function of it.
        requests: read no further than the requests ahead.
        workers: threads.
        ahead: how many requests may be prepared or waiting at once, so that memory stays bounded; twice the workers
            by default.
    """
    limit = 2 * workers if ahead is None else ahead
    pending: deque[tuple[str, Future[P]]] = deque()

    def first() -> P | DocumentError:
        key, future = pending.popleft()
        error = future.exception()
        return future.result() if error is None else cannot_prepare(key, error)

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="prepare") as pool:
        try:
            for request in requests:
                pending.append((request.key, pool.submit(prepare, request)))
                if len(pending) >= limit:
                    yield first()
            while pending:
                yield first()
        finally:
            for _, future in pending:
                future.cancel()


def cannot_prepare(key: str, error: BaseException) -> DocumentError:
    """The error that names the document."""
    failure = DocumentError(f"document {key} can't be prepared: {str(error) or type(error).__name__}")
    failure.__cause__ = error
    return failure
