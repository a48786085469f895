"""A run's own journal, `answers.rank*.jsonl`: what it answered and at which cost, against which samples are held.

A samples file is of the run if each of its answers, with its account, is in the journal. lmms-eval's response cache
drops accounts; then the journal has them, or the answer is not the run's.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic_core import from_json

from vico_eval.errors import ReportError
from vico_eval.report.records import (
    AnswerLine,
    TokenAccount,
    object_or_none,
    parse_object,
    read_lines,
    validate,
)


class Answered(NamedTuple):
    """One answer of a run's journal."""

    text: str
    account: str
    """As JSON: parsing it would take most of the time, and nearly always it stands in the samples file as it is."""

    place: str
    """File and line."""

    def counts(self) -> TokenAccount:
        """The account.

        Raises:
            ReportError: it is of another schema.
        """
        return validate(TokenAccount, parse_object(self.account, self.place), f"{self.place}, `account`")


Journal = Mapping[str, Mapping[int | str, Sequence[Answered]]]
"""Answers by task and document, in the order in which they were given: continued runs answer some again."""

_BEFORE_ACCOUNT = ', "account": '
"""It can't stand inside a JSON string, where quotation marks are escaped."""

_KEYS = AnswerLine.model_fields.keys() - {"account"}


def read_journal(folder: Path, only: Collection[str] | None = None) -> Journal | None:
    """The answers in the journal of the run in `folder`; None where it has no journal.

    A line that was cut off when a run was stopped is passed over.

    Args:
        folder: the run's.
        only: tasks to read; None for all.

    Raises:
        ReportError: a line of another schema, or a document whose counts differ between two processes' files.
    """
    paths = sorted(folder.glob("answers.rank*.jsonl"))
    if not paths:
        return None
    others = _OtherTasks(only)
    journal: dict[str, dict[int | str, list[Answered]]] = {}
    for path in paths:
        own: dict[tuple[str, int | str], list[Answered]] = {}
        for place, text in read_lines(path):
            if not others.have(text) and (line := _read_line(text, place)) is not None:
                task, doc_id, answered = line
                own.setdefault((task, doc_id), []).append(answered)
        for (task, doc_id), answers in own.items():
            earlier = journal.setdefault(task, {}).setdefault(doc_id, [])
            if earlier and not _cost_the_same(earlier[-1], answers[-1]):
                raise ReportError(
                    f"{path} gives document {doc_id} of {task} other token counts than another process's file. Two "
                    f"different runs seem to share {folder}; give each its own --output_path."
                )
            earlier += answers
    return journal


def find_answer(
    answers: Sequence[Answered], text: str | None, account: TokenAccount | None, line: str
) -> Answered | None:
    """The last of a document's answers in the journal that is the one in a samples file; None where none is.

    Args:
        answers: of the document.
        text: what the samples file says; None where it doesn't say what the model did.
        account: what it cost by the samples file; None where that doesn't say.
        line: of the samples file.

    Raises:
        ReportError: an account of the journal is of another schema.
    """
    for answered in reversed(answers):
        if text is not None and answered.text != text:
            continue
        # Both files have it as Python's json writes it; one that was written otherwise is compared by its numbers.
        if account is None or answered.account in line or answered.counts() == account:
            return answered
    return None


class _OtherTasks:
    """Lines of tasks that are not wanted, known by their beginning."""

    def __init__(self, wanted: Collection[str] | None) -> None:
        self._wanted = None if wanted is None else tuple(f'{{"task": "{name}"' for name in wanted)

    def have(self, line: str) -> bool:
        return self._wanted is not None and line.startswith('{"task": "') and not line.startswith(self._wanted)


def _read_line(text: str, place: str) -> tuple[str, int | str, Answered] | None:
    """Task, document and answer; None where the line is cut off."""
    start, _, account = text.partition(_BEFORE_ACCOUNT)
    if account.endswith("}}"):
        with suppress(ValueError):
            line = from_json(f"{start}}}", cache_strings="keys")
            if line.keys() == _KEYS and isinstance(line["text"], str) and isinstance(line["doc_id"], int | str):
                return line["task"], line["doc_id"], Answered(line["text"], account[:-1], place)
    value = object_or_none(text)
    if value is None:
        return None
    answer = value.get("text")
    # pydantic takes no half of a character (a lone surrogate), which may end an answer.
    whole = validate(AnswerLine, value | {"text": ""} if isinstance(answer, str) else value, place)
    return whole.task, whole.doc_id, Answered(str(answer), whole.account.model_dump_json(), place)


def _cost_the_same(first: Answered, second: Answered) -> bool:
    return first.account == second.account or _visual_counts(first.counts()) == _visual_counts(second.counts())


def _visual_counts(account: TokenAccount) -> tuple[object, ...]:
    return account.tiles, account.compressed_tiles, account.visual_tokens, account.visual_tokens_per_layer
