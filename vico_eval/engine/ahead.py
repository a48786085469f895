"""Preparation of requests in threads, ahead of the model."""

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
    """Yield prepared requests in order, while threads prepare the next ones.

    A request that can't be prepared yields an error that names it, whatever the reason.

    Args:
        prepare: a `Preprocessor`, or another function of it.
        requests: consumed only as far as `ahead` allows.
        workers: number of threads.
        ahead: maximum number of requests that are being prepared or waiting, which bounds memory; by default twice the
            number of workers.
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
    """Return the error that names the document."""
    failure = DocumentError(f"document {key} can't be prepared: {str(error) or type(error).__name__}")
    failure.__cause__ = error
    return failure
