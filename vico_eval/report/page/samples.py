"""The page's documents: what filters need of all of them, and what one shows when it is opened.

A row with several runs is shown by its first one: answers of several can't be told apart by right and wrong.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from vico_eval.report.page.scripts import known
from vico_eval.report.stats.loyalty import first_difference
from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import runs_by_cell
from vico_eval.runs.results import Document, Run
from vico_eval.runs.schema import TokenAccount

# What a digest may be: it becomes part of a path.
_DIGEST = re.compile(r"[0-9a-f]{8,64}")

ReadRun = Callable[[int, Collection[str]], Run]
"""Reads a run, by its number among the measured ones, with its documents of some tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowAnswers:
    """A row's first run on a benchmark."""

    run: Run
    documents: Sequence[Document]
    scores: np.ndarray
    """[documents], 0-100; NaN where the benchmark has none by document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSamples:
    """A benchmark's documents, with each row's answers."""

    title: str
    tasks: tuple[tuple[str, int], ...]
    """Its tasks, with their number of documents; the documents are in this order."""

    rows: tuple[RowAnswers | None, ...]
    """In the order of the table; None where a row was not run."""

    baseline: int
    """The place of the baseline among the rows."""

    @property
    def _present(self) -> list[RowAnswers]:
        """The rows that were run, the baseline first."""
        order = [self.rows[self.baseline], *self.rows]
        return [row for row in order if row is not None]

    def index(self) -> dict[str, Any]:
        """What filters and sorting need: ids, and by row scores, tokens, which answers differ and which failed.

        `differs` has a character a document: 1 where the answer is not the baseline's.
        """
        base = self.rows[self.baseline]
        return {
            "title": self.title,
            "tasks": self.tasks,
            "ids": [document.doc_id for document in self._present[0].documents],
            "scores": [row and [_short(score) for score in row.scores] for row in self.rows],
            "tokens": [row and [_tokens(document) for document in row.documents] for row in self.rows],
            "differs": [row and base and _differences(row.documents, base.documents) for row in self.rows],
            "failed": [
                row and [place for place, document in enumerate(row.documents) if document.failure is not None]
                for row in self.rows
            ],
        }

    def documents(self) -> Iterator[tuple[dict[str, Any], dict[str, Path]]]:
        """What each document shows, in order, and the files of its pictures by their place in the page's folder."""
        present = self._present
        for place in range(len(present[0].documents)):
            own = [row.documents[place] for row in present]
            names, files = _pictures(present, place)
            yield (
                {
                    "question": next((document.question for document in own if document.question), ""),
                    "target": next((document.target for document in own if document.target), ""),
                    "pictures": names,
                    "rows": [row and _shown(row.documents[place]) for row in self.rows],
                },
                files,
            )


def read_samples(
    measured: Measurements, read: ReadRun, rows: Sequence[str], benchmarks: Sequence[str], baseline: str
) -> Iterator[BenchmarkSamples]:
    """The benchmarks that some row was run on, one at a time.

    Args:
        measured: what the runs measured.
        read: reads a run's documents of a benchmark.
        rows: titles in the order of the table; the baseline among them.
        benchmarks: titles.
        baseline: the row to compare with.
    """
    runs = runs_by_cell(measured.cells)
    for title in benchmarks:
        if title not in measured.documents:
            continue
        documents = measured.documents[title]
        firsts = [min(runs.get((row, title), ()), default=None) for row in rows]
        yield BenchmarkSamples(
            title=title,
            tasks=tuple(documents.tasks.items()),
            rows=tuple(None if run is None else _row_answers(documents, run, read) for run in firsts),
            baseline=rows.index(baseline),
        )


def _row_answers(documents: Documents, number: int, read: ReadRun) -> RowAnswers:
    run = read(number, list(documents.tasks))
    answered = [document for task in documents.tasks for document in run.tasks[task].documents]
    scored = documents.runs[number].scored
    scores = np.full(len(answered), np.nan) if scored is None else scored.scores
    return RowAnswers(run=run, documents=answered, scores=scores)


def _differences(own: Sequence[Document], base: Sequence[Document]) -> str:
    return "".join("01"[_differs(one, other)] for one, other in zip(own, base, strict=True))


def _differs(one: Document, other: Document) -> bool:
    if one.answer is None or other.answer is None:
        return one.answer is not other.answer
    return first_difference(one.answer, other.answer) is not None


def _shown(document: Document) -> dict[str, Any]:
    """A row's answer with its counts; keys without a value are left out."""
    shown: dict[str, Any] = {"answer": document.answer, "failure": document.failure}
    if document.account is not None:
        shown["tiles"] = sum(account.tiles for account in document.account)
        shown["compressed"] = sum(account.compressed_tiles for account in document.account)
        shown |= _tiling(document.account)
    return {key: value for key, value in shown.items() if value is not None}


def _tiling(accounts: Sequence[TokenAccount]) -> dict[str, Any]:
    """Grids of all pictures, scores and compressed places of all tiles; empty where an account doesn't say how."""
    grids = [grid for account in accounts for grid in account.grids or ()]
    tiles = sum(account.tiles for account in accounts)
    if not grids or sum(grid[2] for grid in grids) != tiles:
        return {}
    starts = accumulate((account.tiles for account in accounts), initial=0)
    places = [
        start + place for start, account in zip(starts, accounts, strict=False) for place in account.compressed or ()
    ]
    scores = [round(score, 3) for account in accounts for score in account.p_compress or ()]
    return {
        "grids": grids,
        "scores": scores if len(scores) == tiles else None,
        "places": None if any(account.compressed is None for account in accounts) else places,
    }


def _pictures(rows: Sequence[RowAnswers], place: int) -> tuple[list[str | None], dict[str, Path]]:
    """A name a picture or frame, None where it has no file, of the first row whose run kept any; and the files."""
    for row in rows:
        if row.run.record.previews is None:
            continue
        folder = row.run.folder / row.run.record.previews
        names: list[str | None] = []
        files: dict[str, Path] = {}
        for name in _names(row.documents[place].account or ()):
            is_there = name is not None and _is_in(folder, name)
            names.append(f"pictures/{name}" if is_there else None)
            if name is not None and is_there:
                files[f"pictures/{name}"] = folder / name
        if files:
            return names, files
    return [], {}


def _is_in(folder: Path, name: str) -> bool:
    """Whether the file is in the folder itself: a link beneath it may lead to anything, which is not the page's."""
    path = folder / name
    return path.is_file() and not (path.is_symlink() or path.parent.is_symlink())


def _names(accounts: Sequence[TokenAccount]) -> Iterator[str | None]:
    for account in accounts:
        for number in range(len(account.grids or ())):
            if account.media is None or not _DIGEST.fullmatch(account.media):
                yield None
            else:
                yield f"{account.media[:2]}/{account.media}-{number}.jpg"


def _tokens(document: Document) -> int | None:
    """Visual tokens that a layer saw, on average over layers; None without an account."""
    if document.account is None:
        return None
    return round(sum(account.mean_layer_tokens for account in document.account))


def _short(score: float) -> float | int | None:
    """A score in as few characters as it needs."""
    value = known(score)
    return int(value) if value is not None and value.is_integer() else value
