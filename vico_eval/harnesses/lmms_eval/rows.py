"""The run of a row while lmms-eval's documents are answered: its folder, earlier answers, and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import Found
from vico_eval.engine.row import Answer
from vico_eval.errors import DocumentError, UserError
from vico_eval.harnesses.earlier_answers import Asking, take_over
from vico_eval.logs import logger
from vico_eval.runs.schema import AnswerKey, TokenAccount
from vico_eval.runs.write import RunFolder

FAILURES_IN_A_ROW = 20
"""This many consecutive failures have a cause other than the documents."""

Said = tuple[str, TokenAccount]
"""An answer, new or earlier."""


class RowRun:
    """The run of a row."""

    def __init__(
        self, found: Found, run: RunFolder, *, keep_going: bool, asked: Mapping[AnswerKey, str | None] | None = None
    ) -> None:
        """
        Args:
            found: the checkpoint and method.
            run: the folder for answers.
            keep_going: record a document that can't be answered and continue with the others.
            asked: what a pass of this process asked for it; see `passes.asked_here`.
        """
        self.found = found
        self.run = run
        self.results: dict[int, Said | None] = {}
        """By request number; None without an answer."""

        self._keep_going = keep_going
        self._asked = {} if asked is None else asked
        self._keys: Sequence[AnswerKey] = ()
        self._failed: set[str] = set()
        self._failures_in_a_row = 0
        self._reasons: dict[AnswerKey, str] = {}
        """Why there is no answer."""

    @property
    def failed(self) -> int:
        """The number of documents without an answer."""
        return len(self._failed)

    @property
    def failed_documents(self) -> set[str]:
        """The documents without an answer, `task/split/number`."""
        return self._failed

    def begin(self, keys: Sequence[AnswerKey], asking: Asking, *, show_progress: bool) -> None:
        """Reuse earlier answers and failures found by this process.

        Args:
            keys: the requests' keys.
            asking: the requests.
            show_progress: show a progress bar if many are compared.
        """
        self._keys = keys
        stored = take_over(
            self.run, keys, asking, self.found.preprocessor, unchanged=self._asked.keys(), show_progress=show_progress
        )
        self.results = {number: (answer.text, answer.account) for number, answer in stored.items()}
        for number, key in enumerate(keys):
            if self._keep_going and number not in self.results and (reason := self._asked.get(key)) is not None:
                self.results[number] = None
                self._failed.add(key[0])
                self._reasons[key] = reason
        if stored:
            logger.info(f"{len(stored)} of {len(keys)} answers are there already, in {self.run.folder}")

    def add(self, number: int, outcome: Answer | DocumentError, asking: Asking) -> None:
        """Record the outcome of a request.

        Raises:
            DocumentError: it failed, and the row must stop at failures.
        """
        key = self._keys[number]
        if isinstance(outcome, Answer):
            self.run.add(key, outcome.text, outcome.account, asking.made[number], outcome.seconds)
            self.results[number] = outcome.text, outcome.account
            self._failures_in_a_row = 0
            return
        if not self._keep_going:
            raise outcome
        self.run.add_failure(key, str(outcome))
        logger.error(str(outcome))
        # Earlier failures are not counted, because documents between them may have been answered earlier.
        self._failures_in_a_row += key[0] not in self._failed | self.run.failed
        self._failed.add(key[0])
        self.results[number] = None
        self._reasons[key] = str(outcome)
        if self._failures_in_a_row == FAILURES_IN_A_ROW:
            raise DocumentError(f"{FAILURES_IN_A_ROW} documents in a row could not be answered; the last: {outcome}")

    def outcomes(self) -> dict[AnswerKey, str | None]:
        """Return each request's outcome so far: None if answered, otherwise why not."""
        return {key: self._reasons.get(key) for number, key in enumerate(self._keys) if number in self.results}


def ask(engine: Engine, rows: Sequence[RowRun], asking: Asking) -> None:
    """Answer the requests that have no answer yet, for several rows.

    Args:
        engine: the engine with the rows' methods, in order.
        rows: rows that have begun.
        asking: the requests.

    Raises:
        UserError, OSError: the first row can't continue; raised after the others are answered.
    """
    given_up: set[int] = set()
    own: list[Exception] = []
    known = [tuple(row.results) for row in rows]
    for place, number, outcome in engine.row_outcomes(asking.requests, known, given_up):
        if place in given_up:
            continue
        try:
            rows[place].add(number, outcome, asking)
        except (UserError, OSError) as error:  # its folder may be deleted, or the disk full
            given_up.add(place)
            # Without its frames, which keep the model alive.
            own += [error.with_traceback(None)] if place == 0 else []
            if len(rows) > 1:
                logger.error(f"{rows[place].run.folder} is given up, the other rows go on: {error}")
            if len(given_up) == len(rows):
                break
    if own:
        raise own.pop()
