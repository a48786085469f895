"""A run's own journal, `answers.rank*.jsonl`: what it answered and at which cost, against which samples are held.

A samples file is of the run if each of its answers, with its account, is in the journal. lmms-eval's response cache
drops accounts; then the journal has them, or the answer is not the run's.
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
    """One answer of a run's journal."""

    text: str
    account: str
    """As JSON: parsing it would take most of the time, and nearly always it stands in the samples file as it is."""

    question: str
    """Digest of the question's text; empty in journals of older versions."""

    repeat: int
    """How many times the document had been asked before."""

    seconds: object
    """As parsed and not yet checked; None in journals of older versions."""

    path: Path
    line: int

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return place_of(self.path, self.line)

    def counts(self) -> TokenAccount:
        """The account.

        Raises:
            ReportError: it is of another schema.
        """
        return validate(TokenAccount, parse_object(self.account, self.place), f"{self.place}, `account`")

    def took(self) -> AnswerSeconds | None:
        """What it took; None if the journal has no times.

        Raises:
            ReportError: they are of another schema, such as a negative number or a text.
        """
        if self.seconds is None:
            return None
        try:
            return AnswerSeconds.model_validate(self.seconds)
        except ValidationError:
            # Only now: to name the place takes as long as to check the times.
            return validate(AnswerSeconds, self.seconds, f"{self.place}, `seconds`")


Journal = Mapping[str, Mapping[int | str, Sequence[Answered]]]
"""Answers by task and document, in the order in which they were given: continued runs answer some again."""

_ACCOUNT = '"account": '
_BEFORE_ACCOUNT = f", {_ACCOUNT}"
"""It can't stand inside a JSON string, where quotation marks are escaped."""

_KEYS = StoredAnswer.model_fields.keys() - {"account"}


def read_journal(folder: Path, only: Collection[str] | None = None) -> Journal | None:
    """The answers in the journal of the run in `folder`; None where it has no journal.

    A line that was cut off when a run was stopped is passed over.

    Args:
        folder: the run's.
        only: tasks to read; None for all.

    Raises:
        ReportError: a line of another schema, or a document whose counts differ between two processes' files.
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
    """The last of a document's answers in the journal that is the one in a samples file; None where none is.

    Args:
        answers: of the document.
        text: what the samples file says; None where it doesn't say what the model did.
        account: what it cost by the samples file; None where that doesn't say.
        line: of the samples file.
        question: its question; None where that is not the one text that was asked.
        repeat: number of the request among the document's; None if there is only one. Requests with the same answer
            have times of their own, so an answer to this request is preferred to one of another.

    Raises:
        ReportError: an account of the journal is of another schema.
    """
    place = line.find(_ACCOUNT) + len(_ACCOUNT)
    asked = None if question is None else text_digest(question)
    to_another = None
    for answered in reversed(answers):
        if asked is not None and answered.question not in ("", asked):
            continue
        if text is not None and answered.text != text:
            continue
        # Both files have it as Python's json writes it; another than the line's first is compared by its numbers.
        if account is None or line.startswith(answered.account, place) or answered.counts() == account:
            if repeat in (None, answered.repeat):
                return answered
            to_another = to_another or answered
    return to_another


def _read_answers(path: Path, only: Collection[str] | None) -> Iterator[tuple[str, int | str, Answered]]:
    """Task, document and answer of each line that is not cut off."""
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
    """A line that is not as usual, and its account as JSON with what ends the line; None where it is cut off.

    Raises:
        ReportError: it is of another schema.
    """
    value = object_or_none(text)
    if value is None:
        return None, ""
    # pydantic takes no half of a character (a lone surrogate), which may end an answer.
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
    """Add a task's answers of another process to those there are."""
    for doc_id, answers in documents.items():
        before = earlier.setdefault(doc_id, [])
        if before and not _cost_the_same(before[-1], answers[-1]):
            raise ReportError(
                f"{path} gives document {doc_id} of {task} other token counts than another process's file. Two "
                f"different runs seem to share {folder}; give each its own --output_path."
            )
        before += answers


def _cost_the_same(first: Answered, second: Answered) -> bool:
    return first.account == second.account or _visual_counts(first.counts()) == _visual_counts(second.counts())


def _visual_counts(account: TokenAccount) -> tuple[object, ...]:
    return account.tiles, account.compressed_tiles, account.visual_tokens, account.visual_tokens_per_layer
