"""A finished run as reports take it, whichever harness scored it: tasks with their metrics, documents with accounts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vico_eval.runs.schema import AnswerSeconds, RunRecord, TokenAccount


class Document(NamedTuple):
    """One row of a benchmark, as a run answered it. Hundred thousands are made, for which dataclasses take longer."""

    doc_id: int | str
    fields: Mapping[str, Any]
    """The metrics' fields of the samples line: a number, or an object that holds one."""

    account: tuple[TokenAccount, ...] | None
    """One for each of the document's requests; None where a run left none."""

    answer: str | None = None
    """What the model said, as it was scored; several answers are joined by line breaks. None where it failed."""

    failure: str | None = None
    """Why it has no answer, where the run went on without. lmms-eval has scored it as a blank one."""

    question: str = ""
    """The text that was asked, as far as the toolkit kept it."""

    target: str = ""
    """What is right, as text; several right answers are joined by line breaks."""

    seconds: tuple[AnswerSeconds, ...] | None = None
    """What each of its answers took; None unless all of them have a time."""

    said: tuple[str, ...] | None = None
    """What the model said to each of its requests, before a task's filters where the run kept that; None where the
    document failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSums:
    """What documents took, in seconds, summed over those that have times, and the most memory of any."""

    documents: int = 0
    """Those with times."""

    reading: float = 0.0
    encoding: float = 0.0
    own: float = 0.0
    """As in `AnswerSeconds`."""

    staged_documents: int = 0
    """Those of which prefill and decode are known."""

    prefill: float = 0.0
    decode: float = 0.0
    """As in `AnswerSeconds`, of the staged ones."""

    peak_bytes: int = 0
    """The most of any answer's batch; 0 where none is known."""

    rows: frozenset[int] = frozenset()
    """How many rows reading and encoding were for; several numbers if documents differ."""

    def __add__(self, other: "TimeSums") -> "TimeSums":
        return TimeSums(
            documents=self.documents + other.documents,
            reading=self.reading + other.reading,
            encoding=self.encoding + other.encoding,
            own=self.own + other.own,
            staged_documents=self.staged_documents + other.staged_documents,
            prefill=self.prefill + other.prefill,
            decode=self.decode + other.decode,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
            rows=self.rows | other.rows,
        )


def sum_times(documents: Iterable[Sequence[AnswerSeconds] | None]) -> TimeSums:
    """The sums over documents; each is given by what its answers took, or None if it has no times."""
    known = [answers for answers in documents if answers]
    times = [time for answers in known for time in answers]
    staged = [answers for answers in known if all(None not in (time.prefill, time.decode) for time in answers)]
    return TimeSums(
        documents=len(known),
        reading=sum(time.reading for time in times),
        encoding=sum(time.encoding for time in times),
        own=sum(time.own for time in times),
        staged_documents=len(staged),
        prefill=sum(time.prefill or 0.0 for answers in staged for time in answers),
        decode=sum(time.decode or 0.0 for answers in staged for time in answers),
        peak_bytes=max((time.peak_bytes or 0 for time in times), default=0),
        rows=frozenset(time.rows for time in times),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """One lmms-eval task (never a group) of a run."""

    name: str
    metrics: Mapping[str, Any]
    """lmms-eval's aggregated numbers, under keys such as `exact_match,none`."""

    documents: tuple[Document, ...]
    """Ascending by doc_id, whichever process answered them."""

    num_available: int
    """Documents the task has; a limited run answers fewer."""

    version: str
    """Of the task; empty where it isn't known."""

    settings: Mapping[str, Any]
    """What a comparison must hold fixed: generation settings and few-shot count; None where it isn't known."""

    results_path: Path
    samples_path: Path

    @property
    def times(self) -> TimeSums:
        """What its documents took, as far as the run has times."""
        return sum_times(document.seconds for document in self.documents)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of one system."""

    folder: Path
    record: RunRecord
    tasks: Mapping[str, TaskResult]
    notes: tuple[str, ...] = ()
    """What a reader has to know of it besides its record."""
