"""Prompts that vLLM is still decoding, and how their answers return."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from vico_eval.engine.decode.backend import Backend, Decoded, EmbeddedPrompt
from vico_eval.errors import DOCUMENT_FAILURES, DocumentError
from vico_eval.logs import logger
from vico_eval.runs.schema import AnswerSeconds

if TYPE_CHECKING:
    from vico_eval.engine.row import Answer

    Outcome: TypeAlias = Answer | DocumentError

MAX_BYTES = 2 * 2**30
"""Maximum size of embeddings waiting for an answer, in bytes; a prompt of 3,000 tokens takes 24 MB at 8B."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pending:
    """A prompt that waits for vLLM's answer."""

    prompt: EmbeddedPrompt
    seconds: AnswerSeconds
    """The time it has taken so far."""

    finish: Callable[[list[int]], Answer]
    """Makes the answer from its tokens."""


def settled(
    outcomes: Iterable[tuple[int, int, Outcome | Pending]], backend: Backend | None, known: Sequence[Collection[int]]
) -> Iterator[tuple[int, int, Outcome]]:
    """Yield the outcomes with pending ones replaced by vLLM's answers, in order of completion.

    Args:
        outcomes: row, number of the request and its outcome; consumed only as far as vLLM has capacity.
        backend: the backend that decodes pending prompts; None if there are none.
        known: by row, numbers of requests that need no answer.

    Raises:
        UserError: vLLM is gone.
    """
    waiting: dict[Future[Decoded], tuple[int, int, Pending]] = {}
    try:
        yield from _exchanged(outcomes, backend, known, waiting)
    finally:
        for future in waiting:  # if the answers are no longer needed
            future.cancel()
    if backend is not None and (words := backend.closing_words()):
        logger.warning(words)


def _exchanged(
    outcomes: Iterable[tuple[int, int, Outcome | Pending]],
    backend: Backend | None,
    known: Sequence[Collection[int]],
    waiting: dict[Future[Decoded], tuple[int, int, Pending]],
) -> Iterator[tuple[int, int, Outcome]]:
    held = _Held(0 if backend is None else backend.max_in_flight)
    clock = _Clock()
    for row, number, outcome in outcomes:
        if not isinstance(outcome, Pending):
            yield row, number, outcome
            continue
        if number in known[row]:
            continue
        assert backend is not None, "without one nothing is pending"
        if not waiting:
            clock.start()
        waiting[backend.submit(outcome.prompt)] = row, number, outcome
        held.add(outcome.prompt)
        while waiting:
            done, _ = wait(waiting, timeout=None if held.is_full else 0, return_when=FIRST_COMPLETED)
            if not done:
                break
            yield from _taken(done, waiting, held, clock)
    while waiting:
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        yield from _taken(done, waiting, held, clock)


class _Held:
    """The number of waiting prompts and their size."""

    def __init__(self, most: int) -> None:
        self._most, self._number, self._bytes = most, 0, 0

    @property
    def is_full(self) -> bool:
        return self._number >= self._most or self._bytes >= MAX_BYTES

    def add(self, prompt: EmbeddedPrompt) -> None:
        self._number += 1
        self._bytes += prompt.embeddings.nbytes

    def remove(self, prompt: EmbeddedPrompt) -> None:
        self._number -= 1
        self._bytes -= prompt.embeddings.nbytes


class _Clock:
    """Distribution of vLLM's working time over answers: each gets the time since the previous answer."""

    def start(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        before, self._since = self._since, time.perf_counter()
        return self._since - before


def _taken(
    done: Iterable[Future[Decoded]],
    waiting: dict[Future[Decoded], tuple[int, int, Pending]],
    held: _Held,
    clock: _Clock,
) -> Iterator[tuple[int, int, Outcome]]:
    # Finished answers are yielded before an error that ends the run.
    for future in sorted(done, key=lambda future: future.exception() is not None):
        row, number, pending = waiting.pop(future)
        held.remove(pending.prompt)
        yield row, number, _outcome(future, pending, clock.lap())


def _outcome(future: Future[Decoded], pending: Pending, decoding: float) -> Outcome:
    try:
        answer = pending.finish(future.result().tokens)
    except DOCUMENT_FAILURES as error:
        failure = DocumentError(f"document {pending.prompt.key} failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    seconds = pending.seconds.model_copy(update={"own": pending.seconds.own + decoding})
    return replace(answer, seconds=seconds)
