"""Match the documents of two runs, by task and doc_id within a toolkit and by VLMEvalKit's index across toolkits."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vico_eval.errors import ReportError
from vico_eval.report.scores.benchmarks import Benchmark, as_column
from vico_eval.runs.results import Document, Run, TaskResult
from vico_eval.runs.schema import VLMEVALKIT
from vico_eval.score_rules import VLMEvalKit
from vico_eval.suites import load_benchmarks

FEW = 0.05
"""Largest share of documents whose text may differ between two runs. Above it, the data are considered different."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Side:
    """One run's side of a benchmark."""

    tasks: tuple[TaskResult, ...]
    column: Benchmark | None
    """The benchmark's scoring rule; None if it is not in the catalogue."""

    keys: tuple[Hashable, ...] = ()
    """[documents], task by task; equal keys in both runs mean the same document. Empty if documents can't be
    matched."""

    @property
    def documents(self) -> list[Document]:
        """All documents, task by task."""
        return [document for task in self.tasks for document in task.documents]

    @property
    def names(self) -> list[str]:
        """[documents], their names in messages."""
        return [f"{task.name}/{document.doc_id}" for task in self.tasks for document in task.documents]


class Pair(NamedTuple):
    """A benchmark in both runs."""

    title: str
    first: Side
    second: Side

    @property
    def is_matched(self) -> bool:
        """True if documents can be matched."""
        return bool(self.first.keys and self.second.keys)

    def places(self) -> tuple[list[int], list[int]]:
        """Indices of the common documents, in the first run and in the second."""
        others = {key: place for place, key in enumerate(self.second.keys)}
        both = [(place, others[key]) for place, key in enumerate(self.first.keys) if key in others]
        return [own for own, _ in both], [other for _, other in both]


class Pairs(NamedTuple):
    """The benchmarks that two runs have in common."""

    benchmarks: tuple[Pair, ...]
    notes: tuple[str, ...]


def pair_runs(first: Run, second: Run) -> Pairs:
    """Pair up the benchmarks of both runs and match their documents.

    Raises:
        ReportError: the runs have no task or no document in common, or documents with the same key differ.
    """
    pairs, notes = _of_one_toolkit(first, second)
    if first.record.harness != second.record.harness:
        pairs, notes = _of_both_toolkits(first, second)
    if not pairs:
        raise ReportError(
            f"{first.folder} and {second.folder} have no benchmark in common: {', '.join(first.tasks)} of "
            f"{first.record.harness} and {', '.join(second.tasks)} of {second.record.harness}. Give two runs of the "
            "same documents."
        )
    matched = [pair for pair in pairs if pair.is_matched]
    if matched and not any(pair.places()[0] for pair in matched):
        spans = " and ".join(_span(side.names) for side in matched[0][1:])
        raise ReportError(
            f"{first.folder} and {second.folder} answered different documents ({spans}). Give two runs of the same "
            "documents, for instance with the same --limit and --offset."
        )
    for pair in matched:
        notes += _check_same(pair, first, second)
    return Pairs(tuple(pairs), tuple(notes))


def _of_one_toolkit(first: Run, second: Run) -> tuple[list[Pair], list[str]]:
    """The common benchmarks in the catalogue, followed by other common tasks."""
    shared = [name for name in first.tasks if name in second.tasks]
    left = dict.fromkeys(shared)
    pairs = []
    for column in _columns(first.record.harness):
        # Several columns can have the same task, with different titles or model arguments.
        if all(name in left for name in column.tasks):
            left = {name: None for name in left if name not in column.tasks}
            pairs.append(Pair(column.title, *(_side(run, column.tasks, column) for run in (first, second))))
    pairs += [Pair(name, *(_side(run, (name,), None) for run in (first, second))) for name in left]
    missing = [
        f"{', '.join(own)}: only {run.folder} has it."
        for run, other in ((first, second), (second, first))
        if (own := [name for name in run.tasks if name not in other.tasks])
    ]
    return pairs, missing


def _of_both_toolkits(first: Run, second: Run) -> tuple[list[Pair], list[str]]:
    """Benchmarks in the catalogue that one run has from lmms-eval and the other from VLMEvalKit."""
    pairs: dict[tuple[str, ...], Pair] = {}
    notes = []
    for benchmark in load_benchmarks().values():
        column = as_column(benchmark)
        columns = [column.of(run.record.harness) for run in (first, second)]
        sides = [
            _side_by_index(run, own, benchmark.vlmevalkit)
            for run, own in zip((first, second), columns, strict=True)
            if own is not None and benchmark.vlmevalkit is not None and all(name in run.tasks for name in own.tasks)
        ]
        names = tuple(task.name for side in sides for task in side.tasks)
        if len(sides) < 2 or names in pairs:
            continue
        pairs[names] = pair = Pair(column.title, *sides)
        if not pair.is_matched:
            notes.append(
                f"{column.title}: lmms-eval's samples lack VLMEvalKit's document index, so only scores are compared."
            )
    return list(pairs.values()), notes


def _columns(harness: str) -> Iterator[Benchmark]:
    for benchmark in load_benchmarks().values():
        if (column := as_column(benchmark).of(harness)) is not None:
            yield column


def _side(run: Run, names: Sequence[str], column: Benchmark | None) -> Side:
    tasks = tuple(run.tasks[name] for name in names)
    keys = [(task.name, document.doc_id) for task in tasks for document in task.documents]
    return Side(tasks=tasks, column=column, keys=tuple(keys))


def _side_by_index(run: Run, column: Benchmark, rule: VLMEvalKit | None) -> Side:
    """A side with VLMEvalKit's indices as keys, if lmms-eval's samples have them."""
    tasks = tuple(run.tasks[name] for name in column.tasks)
    documents = [document for task in tasks for document in task.documents]
    keys: list[Any] = [document.doc_id for document in documents]
    if run.record.harness != VLMEVALKIT:
        path = rule.index if rule is not None else None
        keys = [] if path is None else [_at(document.fields, path) for document in documents]
    # One toolkit's files have the index as a number, the other's as text.
    known = tuple(str(key) for key in keys if key is not None)
    return Side(tasks=tasks, column=column, keys=known if len(known) == len(documents) else ())


def _at(fields: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = fields
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _check_same(pair: Pair, first: Run, second: Run) -> Iterable[str]:
    """Notes on documents whose text differs between the runs.

    Raises:
        ReportError: the text of too many documents differs, so the data are different.
    """
    crosses = first.record.harness != second.record.harness
    # Toolkits phrase questions differently.
    looked_at: dict[str, Callable[[Document], str]] = {"right answers": lambda document: document.target}
    if not crosses:
        looked_at["questions"] = lambda document: document.question
    documents, others = pair.first.documents, pair.second.documents
    both = [(documents[own], others[other]) for own, other in zip(*pair.places(), strict=True)]
    for what, text_of in looked_at.items():
        texts = [(_plain(text_of(own), crosses), _plain(text_of(other), crosses)) for own, other in both]
        known = [pair for pair in texts if all(pair) or not crosses]
        number = sum(own != other for own, other in known)
        if number > FEW * len(known):
            raise ReportError(
                f"{pair.title}: {first.folder} and {second.folder} have different {what} for {number} of {len(known)} "
                "documents with the same key, so they used different data. Repeat one run with the other's data "
                "and task files."
            )
        if number:
            yield f"{pair.title}: different {what} for {number} of {len(known)} documents."


def _plain(text: str, crosses: bool) -> str:
    return text.strip().casefold() if crosses else text


def _span(names: Sequence[str]) -> str:
    return f"{len(names)}: {names[0]} to {names[-1]}" if names else "none"
