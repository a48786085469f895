"""Read a run's own journal, `answers.rank*.jsonl`: its answers and their costs, used to verify samples files.

A samples file belongs to the run if the journal has each of its answers with the same account. lmms-eval's response
cache drops accounts; then they come from the journal, and an answer that is not in the journal is not the run's.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from vico_eval.digests import text_digest
from vico_eval.errors import ReportError
from vico_eval.runs.folders import ANSWERS, journal_files
from vico_eval.runs.json_text import object_or_none, parse_object, place_of, text_lines, validate
from vico_eval.runs.schema import AnswerSeconds, StoredAnswer, TokenAccount


class Answered(NamedTuple):
    """One answer in a run's journal."""

    text: str
    account: str
    """The account as unparsed JSON, since parsing takes most of the time and the samples file nearly always has the
    same text."""

    question: str
    """Digest of the question's text; empty in journals from older versions."""

    repeat: int
    """Number of earlier requests for the same document."""

    seconds: object
    """The times, parsed but not validated; None in journals from older versions."""

    path: Path
    line: int

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return place_of(self.path, self.line)

    def counts(self) -> TokenAccount:
        """Parse the account.

        Raises:
            ReportError: the account doesn't fit the schema.
        """
        return validate(TokenAccount, parse_object(self.account, self.place), f"{self.place}, `account`")

    def took(self) -> AnswerSeconds | None:
        """Validate the times; None if the journal has none.

        Raises:
            ReportError: the times don't fit the schema, such as a negative number or a string.
        """
        if self.seconds is None:
            return None
        try:
            return AnswerSeconds.model_validate(self.seconds)
        except ValidationError:
            # Formatting the place takes as long as the validation, so it is done only on failure.
            return validate(AnswerSeconds, self.seconds, f"{self.place}, `seconds`")


Journal = Mapping[str, Mapping[int | str, Sequence[Answered]]]
"""Answers by task and document, in the order in which they were given; a continued run can answer a document again."""

_ACCOUNT = '"account": '
_BEFORE_ACCOUNT = f", {_ACCOUNT}"
"""Can't occur inside a JSON string, where quotation marks are escaped."""

_KEYS = StoredAnswer.model_fields.keys() - {"account"}


def read_journal(folder: Path, only: Collection[str] | None = None) -> Journal | None:
    """Read the answers in the journal of the run in `folder`; None if it has no journal.

    Lines that were cut off when a run was stopped are skipped.

    Args:
        folder: the run's folder.
        only: tasks to read; None for all.

    Raises:
        ReportError: a line doesn't fit the schema, or two processes' files disagree on a document's token counts.
    """
    paths = journal_files(folder, ANSWERS)
    if not paths:
        return None
    journal: dict[str, dict[int | str, list[Answered]]] = {}
    for path in paths:
        own: dict[str, dict[int | str, list[Answered]]] = {}
        for task, doc_id, answered in _read_answers(path, only):
            own.setdefault(task, {}).setdefault(doc_id, []).append(answered)
        for task, documents in own.items():
            earlier = journal.setdefault(task, documents)
            if earlier is not documents:
                _join(folder, path, task, earlier, documents)
    return journal


def find_answer(
    answers: Sequence[Answered],
    text: str | None,
    account: TokenAccount | None,
    line: str,
    *,
    question: str | None = None,
    repeat: int | None = None,
) -> Answered | None:
    """The latest of a document's journal answers that matches its samples line; None if none matches.

    Args:
        answers: the document's answers in the journal.
        text: the model's answer in the samples file; None if the file doesn't have it.
        account: the account in the samples file; None if the file doesn't have it.
        line: the samples line.
        question: its question; None if that is not exactly the text that was asked.
        repeat: index of the request among the document's requests; None if there is only one. Requests with the same
            answer have different times, so an answer to this request is preferred to an answer to another.

    Raises:
        ReportError: an account in the journal doesn't fit the schema.
    """
    place = line.find(_ACCOUNT) + len(_ACCOUNT)
    asked = None if question is None else text_digest(question)
    to_another = None
    for answered in reversed(answers):
        if asked is not None and answered.question not in ("", asked):
            continue
        if text is not None and answered.text != text:
            continue
        # Python's json wrote both files, so equal accounts have equal text. The line may hold several accounts; those
        # after the first are compared by value.
        if account is None or line.startswith(answered.account, place) or answered.counts() == account:
            if repeat in (None, answered.repeat):
                return answered
            to_another = to_another or answered
    return to_another


def _read_answers(path: Path, only: Collection[str] | None) -> Iterator[tuple[str, int | str, Answered]]:
    """Yield task, document and answer of each complete line."""
    wanted = None if only is None else tuple(f'{{"task": "{name}"' for name in only)
    for number, text in enumerate(text_lines(path), start=1):
        if wanted is not None and text.startswith('{"task": "') and not text.startswith(wanted):
            continue
        start, _, account = text.partition(_BEFORE_ACCOUNT)
        line = None
        if account.endswith("}}"):
            with suppress(ValueError):
                line = from_json(f"{start}}}", cache_strings="keys")
        if line is None or not (line.keys() <= _KEYS and _has_kinds(line)):
            line, account = _validated(text, place_of(path, number))
        if line is not None:
            yield (
                line["task"],
                line["doc_id"],
                Answered(
                    text=line["text"],
                    account=account[:-1],
                    question=line["asked"].partition("-")[2],
                    repeat=line["repeat"],
                    seconds=line.get("seconds"),
                    path=path,
                    line=number,
                ),
            )


def _has_kinds(line: Mapping[str, Any]) -> bool:
    # Written out: a loop over names would take a tenth of reading a journal.
    return (
        isinstance(line.get("task"), str)
        and isinstance(line.get("text"), str)
        and isinstance(line.get("asked"), str)
        and isinstance(line.get("doc_id"), int | str)
        and isinstance(line.get("repeat"), int)
    )


def _validated(text: str, place: str) -> tuple[dict[str, Any] | None, str]:
    """Parse a line that the fast path rejected: the line, and its account as JSON with the closing brace; None if it
    was cut off.

    Raises:
        ReportError: the line doesn't fit the schema.
    """
    value = object_or_none(text)
    if value is None:
        return None, ""
    # pydantic rejects a lone surrogate, with which an answer may end.
    checked = value | {"text": ""} if isinstance(value.get("text"), str) else value
    validate(StoredAnswer, checked, place)
    return value, f"{json.dumps(value['account'])}}}"


def _join(
    folder: Path,
    path: Path,
    task: str,
    earlier: dict[int | str, list[Answered]],
    documents: Mapping[int | str, list[Answered]],
) -> None:
    """Append a task's answers from another process's file to `earlier`."""
    for doc_id, answers in documents.items():
        before = earlier.setdefault(doc_id, [])
        if before and not _cost_the_same(before[-1], answers[-1]):
            raise ReportError(
                f"{path} gives document {doc_id} of {task} different token counts than another process's file. Two "
                f"different runs seem to share {folder}; give each its own --output_path."
            )
        before += answers


def _cost_the_same(first: Answered, second: Answered) -> bool:
    return first.account == second.account or _visual_counts(first.counts()) == _visual_counts(second.counts())


def _visual_counts(account: TokenAccount) -> tuple[object, ...]:
    return account.tiles, account.compressed_tiles, account.visual_tokens, account.visual_tokens_per_layer
