"""lmms-eval 0.7.3's samples files: each document's answer, and whether it is valid and from this run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from vico_eval.errors import ReportError, listed
from vico_eval.runs.answers import Answered, find_answer
from vico_eval.runs.json_text import parse_object, read_lines, validate
from vico_eval.runs.schema import AnswerSeconds, TokenAccount

# lmms-eval's fields in every samples line; other keys are metrics.
_LINE_KEYS = frozenset(
    {"doc_id", "target", "filtered_resps", "resps", "token_counts", "doc_hash", "input", "input_media"}
)

_NAMED_DOCUMENTS = 10

T = TypeVar("T")


class _Entry(TypedDict, total=False):
    """The counts of a request."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    account: TokenAccount | None


class _Line(TypedDict, total=False):
    """The fields of a line that are checked during parsing."""

    __pydantic_config__ = ConfigDict(extra="allow", cache_strings="keys")  # type: ignore[misc]
    token_counts: list[_Entry | None] | None


# Not the adapter itself, which spends a fifth of the time on its arguments.
_LINE = TypeAdapter(_Line).validator


class Sample(NamedTuple):
    """The fields that are kept of a samples line. The whole line would take several times the memory and parsing
    time."""

    has_answer: bool
    """Whether the line has an answer, which may be blank if its tokens were counted."""

    answer: str
    """The answer after the task's filter, as its scorer saw it."""

    account: tuple[TokenAccount, ...] | None
    """One account per request of the document, from the line or the run's journal; None if neither has all."""

    fields: Mapping[str, Any]
    """The fields of the metrics."""

    question: str
    target: str
    seconds: tuple[AnswerSeconds, ...] | None = None
    """Times of its answers; None unless the run's journal has all of them."""

    said: tuple[str, ...] = ()
    """The model's answer to each request: from the run's journal, or else from the line before the task's filter."""


def read_samples(
    path: Path,
    journal: Mapping[int | str, Sequence[Answered]] | None = None,
    *,
    says_what_the_model_said: bool = True,
) -> dict[int, Sample]:
    """Read a samples file, by document, in ascending order.

    Args:
        path: the file.
        journal: the run's journal of the task's documents; None without a journal.
        says_what_the_model_said: whether the file has the model's unfiltered answers. If a task has its own filters it
            may not, and only accounts are compared.

    Raises:
        ReportError: the file is unreadable or truncated, a document has no number or two lines, its account has another
            schema, or answers differ from the journal's.
    """
    samples: dict[int, Sample] = {}
    of_others = []
    for place, text in read_lines(path):
        line = _read_line(place, text)
        doc_id = line.get("doc_id")
        if not isinstance(doc_id, int):
            raise ReportError(f"{place}: `doc_id` is {doc_id!r}; expected an integer.")
        if doc_id in samples:
            raise ReportError(
                f"{place} is the second line of document {doc_id}; expected one per document. Two runs wrote to the "
                "file, or it was edited by hand; repeat the run into a folder of its own."
            )
        said = _said(line)
        sample = _read_sample(line, said)
        if journal is not None:
            answers = journal.get(doc_id, ())
            own = _as_in_journal(sample, line, text, answers, said if says_what_the_model_said else [])
            if own is None:
                of_others.append((doc_id, sample, answers))
            sample = own or sample
        samples[doc_id] = sample
    if of_others:
        raise ReportError(_not_of_this_run(path, of_others))
    return dict(sorted(samples.items()))


def what_is_wrong(
    name: str,
    expected: Iterable[int],
    samples: Mapping[int, Sample],
    failed: Collection[int],
) -> str | None:
    """Return what is wrong with the answers of task `name`, as text; None if nothing is.

    Args:
        expected: the documents that the run had to answer.
        samples: the result of `read_samples`.
        failed: documents that are known to have failed.
    """
    wanted = set(expected)
    problems = []
    if not wanted:
        problems.append("it has no documents")
    if missing := sorted(wanted - set(samples)):
        problems.append(f"{_documents(missing)} not in the samples file")
    if strange := sorted(set(samples) - wanted):
        problems.append(f"{_documents(strange)} not expected")
    known = wanted - set(failed)
    if blank := [doc_id for doc_id, sample in samples.items() if doc_id in known and not sample.has_answer]:
        problems.append(f"{_documents(blank)} without an answer")
    return f"{name} ({len(wanted)} documents expected): {', '.join(problems)}" if problems else None


def _read_line(place: str, text: str) -> Mapping[str, Any]:
    """Parse a line, with its accounts as `TokenAccount`s."""
    try:
        # Parsing and checking separately would take 50% longer.
        line: Mapping[str, Any] = _LINE.validate_json(text)
        return line
    except ValidationError:
        line = parse_object(text, place)  # accepts lone surrogates and reports where an error is
    entries = line.get("token_counts") or []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("account") is not None:
            entry["account"] = validate(TokenAccount, entry["account"], f"{place}, `token_counts`")
    return line


def _read_sample(line: Mapping[str, Any], said: Sequence[object]) -> Sample:
    return Sample(
        has_answer=_has_answer(line, said),
        answer="\n".join([str(answer) for answer in _flatten(line.get("filtered_resps", line.get("resps")))]),
        account=_known(_accounts_of(line)),
        fields={key: value for key, value in line.items() if key not in _LINE_KEYS},
        question=_text_of(line.get("input")),
        target=_text_of(line.get("target")),
        said=tuple(map(str, said)),
    )


def _as_in_journal(
    sample: Sample, line: Mapping[str, Any], text: str, answers: Sequence[Answered], said: Sequence[object]
) -> Sample | None:
    """Return the sample with accounts from the journal; None if the journal has other answers.

    An answer without an account in either is from a response cache and has none.

    Args:
        sample: the line's sample.
        line: the line of the samples file.
        text: the line, not parsed.
        answers: the journal's answers to the document.
        said: the model's answer to each request; empty if the file doesn't have them.
    """
    given = _accounts_of(line)
    # lmms-eval keeps the text of the first of several requests.
    question = line["input"] if len(given) == 1 and isinstance(line.get("input"), str) else None
    if sample.account is not None and len(sample.account) == 1 >= len(said):
        # Nearly all are like this and need no further checks.
        answer = str(said[0]) if said else None
        own = find_answer(answers, answer, sample.account[0], text, question=question)
        return None if own is None else sample._replace(seconds=_known([own.took()]), said=(own.text,))
    found: list[TokenAccount | None] = []
    took: list[AnswerSeconds | None] = []
    texts: list[str | None] = []
    for number in range(max(len(said), len(given))):
        account = given[number] if number < len(given) else None
        answer = str(said[number]) if number < len(said) else None
        own = find_answer(answers, answer, account, text, question=question, repeat=number)
        if own is None and account is not None:
            return None
        found.append(account if own is None or account is not None else own.counts())
        took.append(None if own is None else own.took())
        texts.append(answer if own is None else own.text)
    known = _known(found)
    if known is None:
        return sample._replace(account=None)
    # The text "None" is an answer if the journal has its token counts. A blank one without counts isn't, because caches
    # keep no blank answers.
    has_answer = sample.has_answer or (bool(said) and all(str(answer).strip() for answer in said))
    return sample._replace(
        account=known[: len(given)],
        has_answer=has_answer,
        seconds=_known(took),
        said=tuple(text for text in texts if text is not None),
    )


def _known(values: Sequence[T | None]) -> tuple[T, ...] | None:
    """Return the values; None unless all are known."""
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _not_of_this_run(path: Path, documents: Sequence[tuple[int, Sample, Sequence[Answered]]]) -> str:
    """Return the message about samples that differ from the journal."""
    named = _documents([doc_id for doc_id, _, _ in documents])
    _, sample, answers = documents[0]
    return (
        f"{path} has answers that are not those of the run in whose folder it is: {named}. The first is "
        f"{_unlike_journal(sample, answers)}. Samples and results of another run were put here, as by two commands "
        "with each other's --output_path. Move them to that run's record, or repeat the run into a folder of its own."
    )


def _unlike_journal(sample: Sample, answers: Sequence[Answered]) -> str:
    """Return a sample's answer and the journal's."""
    if not answers:
        return f"{sample.answer!r}; expected none by the answers.rank*.jsonl beside record.json"
    own = next((answer for answer in reversed(answers) if answer.text == sample.answer), answers[-1])
    counted, given = own.counts(), (sample.account or (None,))[0]
    costs = [
        f"{name} {getattr(given, name)} and not {getattr(counted, name)}"
        for name in TokenAccount.model_fields
        if given is not None and getattr(given, name) != getattr(counted, name)
    ]
    cost = f" at another cost, {costs[0]}" if costs else ""
    if own.text == sample.answer and not costs:
        return f"{sample.answer!r} to {sample.question!r}; expected another question by {own.place}"
    return f"{sample.answer!r}{cost}; expected {own.text!r} by {own.place}"


def _has_answer(line: Mapping[str, Any], answers: Sequence[object]) -> bool:
    if not answers or not all(isinstance(answer, str) for answer in answers):
        return False
    if all(_num_generated(entry) > 0 for entry in line.get("token_counts") or [None]):
        return True  # a model may stop at once: a blank answer with token counts is an answer
    counted = any(line.get("token_counts") or [])
    # lmms-eval writes a missing answer as the text "None"; if the model generated it, there are token counts.
    return all(str(answer).strip() and (counted or answer != "None") for answer in answers)


def _said(line: Mapping[str, Any]) -> list[object]:
    """Return the model's answers, one per request and repetition, before reasoning was removed.

    lmms-eval omits `resps` if that changed nothing, and may store it after the task's own filters.
    """
    return _flatten(line.get("resps", line.get("filtered_resps")))


def _accounts_of(line: Mapping[str, Any]) -> list[TokenAccount | None]:
    """Return the account of each request of the document; None if a request has none."""
    counts = line.get("token_counts") or [None]
    return [entry.get("account") if isinstance(entry, dict) else None for entry in counts]


def _text_of(value: object) -> str:
    """Return a question or reference answer as text; several are joined by line breaks."""
    return (
        value if isinstance(value, str) else "\n".join(["" if item is None else str(item) for item in _flatten(value)])
    )


def _documents(doc_ids: list[int]) -> str:
    return f"document{'s' if len(doc_ids) > 1 else ''} {listed([str(doc_id) for doc_id in doc_ids], _NAMED_DOCUMENTS)}"


def _num_generated(entry: object) -> int:
    """Return the number of generated tokens: from the account, or from the count of lmms-eval's own models."""
    if not isinstance(entry, dict):
        return 0
    account = entry.get("account")
    number = entry.get("output_tokens") if account is None else account.generated_tokens
    return number if isinstance(number, int) else 0


def _flatten(value: object) -> list[object]:
    return [item for part in value for item in _flatten(part)] if isinstance(value, list) else [value]
