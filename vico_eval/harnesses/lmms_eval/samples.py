"""Samples files of lmms-eval 0.7.3: what was answered to each document, whether it is an answer at all, and whose."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from vico_eval.errors import ReportError, listed
from vico_eval.runs.answers import Answered, find_answer
from vico_eval.runs.json_text import parse_object, read_lines, validate
from vico_eval.runs.schema import AnswerSeconds, TokenAccount

# What lmms-eval writes into every samples line; the other keys are metrics.
_LINE_KEYS = frozenset(
    {"doc_id", "target", "filtered_resps", "resps", "token_counts", "doc_hash", "input", "input_media"}
)

_NAMED_DOCUMENTS = 10

T = TypeVar("T")


class _Entry(TypedDict, total=False):
    """One request's counts."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    account: TokenAccount | None


class _Line(TypedDict, total=False):
    """As far as it is checked while it is parsed."""

    __pydantic_config__ = ConfigDict(extra="allow", cache_strings="keys")  # type: ignore[misc]
    token_counts: list[_Entry | None] | None


# Not the adapter itself, which looks at its arguments for a fifth of the time.
_LINE = TypeAdapter(_Line).validator


class Sample(NamedTuple):
    """What is kept of a samples line. The line itself would take several times the memory, and the time to make it."""

    has_answer: bool
    """Whether the line holds an answer, which may be blank if its tokens were counted."""

    answer: str
    """After the task's filter, which is what its scorer saw."""

    account: tuple[TokenAccount, ...] | None
    """One for each of the document's requests, from the line or the run's journal; None where neither has them all."""

    fields: Mapping[str, Any]
    """The metrics' fields."""

    question: str
    target: str
    seconds: tuple[AnswerSeconds, ...] | None = None
    """What each of its answers took; None unless the run's journal has a time for all of them."""

    said: tuple[str, ...] = ()
    """What the model said to each request: by the run's journal, else as the line has it before the task's filter."""


def read_samples(
    path: Path,
    journal: Mapping[int | str, Sequence[Answered]] | None = None,
    *,
    says_what_the_model_said: bool = True,
) -> dict[int, Sample]:
    """What a samples file says of each document, by document, ascending.

    Args:
        path: of the file.
        journal: what the run's own journal says of the task's documents; None where there is no journal.
        says_what_the_model_said: whether the file has answers as the model gave them. Where a task has filters of its
            own it may not, and only accounts are compared.

    Raises:
        ReportError: the file can't be read or is cut off, a document is missing its number or has two lines, its
            account is of another schema, or answers are others than the journal's.
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
                f"{place} is the second line of document {doc_id}; expected one a document. Two runs wrote into the "
                "file, or it was put together by hand; repeat the run into a folder of its own."
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
    """What is wrong with the answers of task `name`, in words; None if nothing is.

    Args:
        expected: the documents that the run was to answer.
        samples: of `read_samples`.
        failed: documents that are known to have no answer.
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
    """The line with its accounts as `TokenAccount`s."""
    try:
        # Parsing and checking one after the other takes half as long again.
        line: Mapping[str, Any] = _LINE.validate_json(text)
        return line
    except ValidationError:
        line = parse_object(text, place)  # takes half of a character too, and says where an error is
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
    """The sample with accounts that only the journal has; None where the journal has other answers than the sample.

    An answer that neither has an account of is a response cache's, and left without one.

    Args:
        sample: of the line.
        line: of the samples file.
        text: the same, not parsed.
        answers: the journal's, of the document.
        said: what the model said to each request; empty where the file doesn't have it.
    """
    given = _accounts_of(line)
    # Of several requests lmms-eval keeps the first one's words.
    question = line["input"] if len(given) == 1 and isinstance(line.get("input"), str) else None
    if sample.account is not None and len(sample.account) == 1 >= len(said):
        # Nearly all are so, and need no more.
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
    # A word "None" is an answer if the journal has counted its tokens; a blank one without counts of its own is none,
    # since caches keep no blank ones.
    has_answer = sample.has_answer or (bool(said) and all(str(answer).strip() for answer in said))
    return sample._replace(
        account=known[: len(given)],
        has_answer=has_answer,
        seconds=_known(took),
        said=tuple(text for text in texts if text is not None),
    )


def _known(values: Sequence[T | None]) -> tuple[T, ...] | None:
    """The values; None unless all of them are known."""
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _not_of_this_run(path: Path, documents: Sequence[tuple[int, Sample, Sequence[Answered]]]) -> str:
    """What to say of samples that are not the journal's answers."""
    named = _documents([doc_id for doc_id, _, _ in documents])
    _, sample, answers = documents[0]
    return (
        f"{path} has answers that are not those of the run in whose folder it is: {named}. The first is "
        f"{_unlike_journal(sample, answers)}. Samples and results of another run were put here, as by two commands "
        "with each other's --output_path. Move them to that run's record, or repeat the run into a folder of its own."
    )


def _unlike_journal(sample: Sample, answers: Sequence[Answered]) -> str:
    """What a sample says and what the journal has in its place."""
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
        return True  # a model may end at once: a blank answer whose tokens were counted is an answer
    counted = any(line.get("token_counts") or [])
    # lmms-eval writes a missing answer as the text "None"; a model that really said so has token counts.
    return all(str(answer).strip() and (counted or answer != "None") for answer in answers)


def _said(line: Mapping[str, Any]) -> list[object]:
    """What the model said, one for each request and repetition, before marks of reasoning were taken out.

    lmms-eval leaves `resps` out where that changed nothing. It may have it after the task's own filters.
    """
    return _flatten(line.get("resps", line.get("filtered_resps")))


def _accounts_of(line: Mapping[str, Any]) -> list[TokenAccount | None]:
    """One for each request of the document; None where a request has none."""
    counts = line.get("token_counts") or [None]
    return [entry.get("account") if isinstance(entry, dict) else None for entry in counts]


def _text_of(value: object) -> str:
    """A question or right answer as text; several are joined by line breaks."""
    return (
        value if isinstance(value, str) else "\n".join(["" if item is None else str(item) for item in _flatten(value)])
    )


def _documents(doc_ids: list[int]) -> str:
    return f"document{'s' if len(doc_ids) > 1 else ''} {listed([str(doc_id) for doc_id in doc_ids], _NAMED_DOCUMENTS)}"


def _num_generated(entry: object) -> int:
    """Tokens that the model wrote for a request: by its account, else as lmms-eval's own models count them."""
    if not isinstance(entry, dict):
        return 0
    account = entry.get("account")
    number = entry.get("output_tokens") if account is None else account.generated_tokens
    return number if isinstance(number, int) else 0


def _flatten(value: object) -> list[object]:
    return [item for part in value for item in _flatten(part)] if isinstance(value, list) else [value]
