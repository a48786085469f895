"""A row while lmms-eval's documents are answered: its run's folder, what is there already, and what fails."""

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
"""So many documents one after another fail for a reason that is not theirs."""

Said = tuple[str, TokenAccount]
"""An answer, wherever it comes from."""


class RowRun:
    """The run of one row."""

    def __init__(
        self, found: Found, run: RunFolder, *, keep_going: bool, asked: Mapping[AnswerKey, str | None] | None = None
    ) -> None:
        """
        Args:
            found: the model.
            run: where answers go.
            keep_going: whether a document that can't be answered is noted and the others are still answered.
            asked: what a pass of this process has asked for it, as `passes.asked_here`.
        """
        self.found = found
        self.run = run
        self.results: dict[int, Said | None] = {}
        """By number of request; None where there is no answer."""

        self._keep_going = keep_going
        self._asked = {} if asked is None else asked
        self._keys: Sequence[AnswerKey] = ()
        self._failed: set[str] = set()
        self._failures_in_a_row = 0
        self._reasons: dict[AnswerKey, str] = {}
        """Why there is no answer."""

    @property
    def failed(self) -> int:
        """How many documents have no answer."""
        return len(self._failed)

    @property
    def failed_documents(self) -> set[str]:
        """Documents without an answer, `task/split/number`."""
        return self._failed

    def begin(self, keys: Sequence[AnswerKey], asking: Asking, *, show_progress: bool) -> None:
        """Take over the answers that there are, and what this process has found to have none.

        Args:
            keys: of the requests.
            asking: the requests.
            show_progress: where many are compared.
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
        """Keep what became of a request.

        Raises:
            DocumentError: it has no answer, and the row is not to go on.
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
        # Those that failed before say nothing new; between them others may have been answered before.
        self._failures_in_a_row += key[0] not in self._failed | self.run.failed
        self._failed.add(key[0])
        self.results[number] = None
        self._reasons[key] = str(outcome)
        if self._failures_in_a_row == FAILURES_IN_A_ROW:
            raise DocumentError(f"{FAILURES_IN_A_ROW} documents in a row could not be answered; the last: {outcome}")

    def outcomes(self) -> dict[AnswerKey, str | None]:
        """What became of each request so far: None where there is an answer, else why there is none."""
        return {key: self._reasons.get(key) for number, key in enumerate(self._keys) if number in self.results}


def ask(engine: Engine, rows: Sequence[RowRun], asking: Asking) -> None:
    """Have rows answer what has no answer yet.

    Args:
        engine: with the methods of the rows, in their order.
        rows: which have begun.
        asking: the requests.

    Raises:
        UserError, OSError: the first row can't go on; the others are answered first.
    """
    given_up: set[int] = set()
    own: list[Exception] = []
    known = [tuple(row.results) for row in rows]
    for place, number, outcome in engine.row_outcomes(asking.requests, known, given_up):
        if place in given_up:
            continue
        try:
            rows[place].add(number, outcome, asking)
        except (UserError, OSError) as error:  # its folder may be gone, or the disk full
            given_up.add(place)
            # Without its frames, which hold the model.
            own += [error.with_traceback(None)] if place == 0 else []
            if len(rows) > 1:
                logger.error(f"{rows[place].run.folder} is given up, the other rows go on: {error}")
            if len(given_up) == len(rows):
                break
    if own:
        raise own.pop()
