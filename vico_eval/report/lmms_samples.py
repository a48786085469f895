"""Samples files of lmms-eval 0.7.3: what was answered to each document, and whether it is an answer at all."""

import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from vico_eval.errors import ReportError
from vico_eval.report.records import read_json_lines

# What lmms-eval writes into every samples line; the other keys are metrics.
_LINE_KEYS = frozenset(
    {"doc_id", "target", "filtered_resps", "resps", "token_counts", "doc_hash", "input", "input_media"}
)

_NAMED_DOCUMENTS = 10


def sample_lines(path: Path) -> dict[int, tuple[str, dict[str, Any]]]:
    """Place and content of each document's line, by document.

    Raises:
        ReportError: the file can't be read or is cut off, or a document is missing its number or has two lines.
    """
    lines: dict[int, tuple[str, dict[str, Any]]] = {}
    for place, line in read_json_lines(path):
        doc_id = line.get("doc_id")
        if not isinstance(doc_id, int):
            raise ReportError(f"{place}: `doc_id` is {doc_id!r}; expected an integer.")
        if doc_id in lines:
            raise ReportError(
                f"{place} is the second line of document {doc_id}; expected one a document. Two runs wrote into the "
                "file, or it was put together by hand; repeat the run into a folder of its own."
            )
        lines[doc_id] = place, line
    return dict(sorted(lines.items()))


def what_is_wrong(
    name: str,
    expected: Iterable[int],
    lines: Mapping[int, tuple[str, dict[str, Any]]],
    failed: Collection[int],
) -> str | None:
    """What is wrong with the answers of task `name`, in words; None if nothing is.

    Args:
        expected: the documents that the run was to answer.
        lines: of `sample_lines`.
        failed: documents that are known to have no answer.
    """
    wanted = set(expected)
    problems = []
    if not wanted:
        problems.append("it has no documents")
    if missing := sorted(wanted - set(lines)):
        problems.append(f"{_documents(missing)} not in the samples file")
    if strange := sorted(set(lines) - wanted):
        problems.append(f"{_documents(strange)} not expected")
    known = wanted - set(failed)
    if blank := [doc_id for doc_id, (_, line) in lines.items() if doc_id in known and not has_answer(line)]:
        problems.append(f"{_documents(blank)} without an answer")
    return f"{name} ({len(wanted)} documents expected): {', '.join(problems)}" if problems else None


def has_answer(line: Mapping[str, Any]) -> bool:
    """Whether a line holds an answer to its document, which may be blank if its tokens were counted."""
    # `resps` is what the model said before any filter; lmms-eval leaves it out where the filter changed nothing.
    answers = list(_flatten(line.get("resps", line.get("filtered_resps"))))
    if not answers or not all(isinstance(answer, str) for answer in answers):
        return False
    if all(_num_generated(entry) > 0 for entry in line.get("token_counts") or [None]):
        return True  # a model may end at once: a blank answer whose tokens were counted is an answer
    counted = any(line.get("token_counts") or [])
    # lmms-eval writes a missing answer as the text "None"; a model that really said so has token counts.
    return all(str(answer).strip() and (counted or answer != "None") for answer in answers)


def answer_of(line: Mapping[str, Any]) -> str:
    """The answer after the task's filter, which is what its scorer saw."""
    return "\n".join(str(answer) for answer in _flatten(line.get("filtered_resps", line.get("resps"))))


def accounts_of(line: Mapping[str, Any]) -> list[object]:
    """The accounts inside a samples line, one for each request of the document; None where a request has none."""
    counts = line.get("token_counts") or [None]
    return [entry.get("account") if isinstance(entry, dict) else None for entry in counts]


def fields_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics' fields of a samples line."""
    return {key: value for key, value in line.items() if key not in _LINE_KEYS}


def text_of(value: object) -> str:
    """A question or right answer as text; several are joined by line breaks."""
    # All runs of a table have the same questions: one copy of each is enough.
    return sys.intern("\n".join("" if item is None else str(item) for item in _flatten(value)))


def _documents(doc_ids: list[int]) -> str:
    named = ", ".join(map(str, doc_ids[:_NAMED_DOCUMENTS]))
    more = f" and {len(doc_ids) - _NAMED_DOCUMENTS} more" if len(doc_ids) > _NAMED_DOCUMENTS else ""
    return f"document{'s' if len(doc_ids) > 1 else ''} {named}{more}"


def _num_generated(entry: object) -> int:
    """Tokens that the model wrote for a request: by its account, else as lmms-eval's own models count them."""
    if not isinstance(entry, dict):
        return 0
    account = entry.get("account")
    number = account.get("generated_tokens") if isinstance(account, dict) else entry.get("output_tokens")
    return number if isinstance(number, int) else 0


def _flatten(value: object) -> Iterable[object]:
    if isinstance(value, list):
        for item in value:
            yield from _flatten(item)
    else:
        yield value
