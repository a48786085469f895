"""Which documents of two runs are the same: by task and doc_id in one toolkit, by VLMEvalKit's index across both."""

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
"""Share of documents that may be worded otherwise in two runs. With more of them they are other documents."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Side:
    """A benchmark in one of two runs."""

    tasks: tuple[TaskResult, ...]
    column: Benchmark | None
    """How its score comes out of the tasks; None where the catalogue doesn't say."""

    keys: tuple[Hashable, ...] = ()
    """[documents], task by task: equal for the same document of the other run; empty where they can't be matched."""

    @property
    def documents(self) -> list[Document]:
        """Task by task."""
        return [document for task in self.tasks for document in task.documents]

    @property
    def names(self) -> list[str]:
        """[documents]: as messages name them."""
        return [f"{task.name}/{document.doc_id}" for task in self.tasks for document in task.documents]


class Pair(NamedTuple):
    """A benchmark in both runs."""

    title: str
    first: Side
    second: Side

    @property
    def is_matched(self) -> bool:
        """Whether it is known which documents are the same."""
        return bool(self.first.keys and self.second.keys)

    def places(self) -> tuple[list[int], list[int]]:
        """Of the documents that both have, among the first run's and the second run's."""
        others = {key: place for place, key in enumerate(self.second.keys)}
        both = [(place, others[key]) for place, key in enumerate(self.first.keys) if key in others]
        return [own for own, _ in both], [other for _, other in both]


class Pairs(NamedTuple):
    """All that two runs have in common."""

    benchmarks: tuple[Pair, ...]
    notes: tuple[str, ...]


def pair_runs(first: Run, second: Run) -> Pairs:
    """The benchmarks of both runs, their documents matched.

    Raises:
        ReportError: the runs have no task, or no document, in common, or documents of the same name differ.
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
            "documents, as by the same --limit and --offset."
        )
    for pair in matched:
        notes += _check_same(pair, first, second)
    return Pairs(tuple(pairs), tuple(notes))


def _of_one_toolkit(first: Run, second: Run) -> tuple[list[Pair], list[str]]:
    """Benchmarks of the catalogue, then other tasks that both runs have."""
    shared = [name for name in first.tasks if name in second.tasks]
    left = dict.fromkeys(shared)
    pairs = []
    for column in _columns(first.record.harness):
        # Two columns of one task differ in their title or in what the model is started with.
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
    """Benchmarks of the catalogue that one run has from lmms-eval and the other one from VLMEvalKit."""
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
                f"{column.title}: lmms-eval's samples do not hold the index by which VLMEvalKit knows a document, so "
                "only scores are compared."
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
    """With VLMEvalKit's indices as keys, where lmms-eval has them."""
    tasks = tuple(run.tasks[name] for name in column.tasks)
    documents = [document for task in tasks for document in task.documents]
    keys: list[Any] = [document.doc_id for document in documents]
    if run.record.harness != VLMEVALKIT:
        path = rule.index if rule is not None else None
        keys = [] if path is None else [_at(document.fields, path) for document in documents]
    # An index is a number in one toolkit's files and text in the other's.
    known = tuple(str(key) for key in keys if key is not None)
    return Side(tasks=tasks, column=column, keys=known if len(known) == len(documents) else ())


def _at(fields: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = fields
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _check_same(pair: Pair, first: Run, second: Run) -> Iterable[str]:
    """Notes on documents that are worded otherwise.

    Raises:
        ReportError: many are, so that they are other documents.
    """
    crosses = first.record.harness != second.record.harness
    # Toolkits ask in words of their own.
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
                f"{pair.title}: {first.folder} and {second.folder} have other {what} in {number} of {len(known)} "
                "documents of the same number, so they read other data. Repeat one of them with the other's data and "
                "task files."
            )
        if number:
            yield f"{pair.title}: other {what} in {number} of {len(known)} documents."


def _plain(text: str, crosses: bool) -> str:
    return text.strip().casefold() if crosses else text


def _span(names: Sequence[str]) -> str:
    return f"{len(names)}: {names[0]} to {names[-1]}" if names else "none"
