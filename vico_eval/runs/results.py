"""A finished run in the form that reports use, for any harness: tasks with metrics, documents with accounts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vico_eval.runs.schema import AnswerSeconds, RunRecord, TokenAccount


class Document(NamedTuple):
    """One row of a benchmark with a run's answer. A NamedTuple, because a report creates hundreds of thousands."""

    doc_id: int | str
    fields: Mapping[str, Any]
    """The metric fields of the samples line; each is a number or an object that contains one."""

    account: tuple[TokenAccount, ...] | None
    """Accounts of the document's requests; None if the run recorded none."""

    answer: str | None = None
    """The scored answer; several answers are joined by line breaks. None if the document failed."""

    failure: str | None = None
    """Reason for a missing answer, if the run continued after the failure. lmms-eval scored it as a blank answer."""

    question: str = ""
    """Text of the question, as far as the toolkit kept it."""

    target: str = ""
    """Reference answer; several are joined by line breaks."""

    seconds: tuple[AnswerSeconds, ...] | None = None
    """Times of its answers; None unless all of them have one."""

    said: tuple[str, ...] | None = None
    """Answer to each request, before a task's filters if the run kept that; None if the document failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSums:
    """Times in seconds, summed over the documents that have them, and the peak memory."""

    documents: int = 0
    """Number of documents with times."""

    reading: float = 0.0
    encoding: float = 0.0
    own: float = 0.0
    """Same fields as in `AnswerSeconds`."""

    staged_documents: int = 0
    """Number of documents with prefill and decode times."""

    prefill: float = 0.0
    decode: float = 0.0
    """Same fields as in `AnswerSeconds`, summed over the staged documents."""

    peak_bytes: int = 0
    """Peak over all answers' batches; 0 if unknown."""

    rows: frozenset[int] = frozenset()
    """Numbers of rows that shared reading and encoding; several if documents differ."""

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
    """Sum the times over documents, each given by the times of its answers or by None."""
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
    """lmms-eval's aggregated metrics, under keys such as `exact_match,none`."""

    documents: tuple[Document, ...]
    """Documents from all processes, in ascending order of doc_id."""

    num_available: int
    """Number of documents in the task; a limited run answers fewer."""

    version: str
    """Version of the task; empty if unknown."""

    settings: Mapping[str, Any]
    """Settings that a comparison must keep equal: generation settings and few-shot count; None for unknown values."""

    results_path: Path
    samples_path: Path

    @property
    def times(self) -> TimeSums:
        """Times summed over its documents that have them."""
        return sum_times(document.seconds for document in self.documents)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of one system."""

    folder: Path
    record: RunRecord
    tasks: Mapping[str, TaskResult]
    notes: tuple[str, ...] = ()
    """Caveats for a reader that the record does not contain."""
