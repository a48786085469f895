"""The page's documents: an index for the filters, and the content of each document.

A row with several runs is represented by its first run, since several answers can't be filtered by right and wrong.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vico_eval.report.page.kept import Sample
from vico_eval.report.page.scripts import known
from vico_eval.report.stats.loyalty import first_difference
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import runs_by_cell

ReadSamples = Callable[[int, str], Sequence[Sample]]
"""Function that reads a run's samples of a benchmark, given the run's number and the benchmark's title."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowAnswers:
    """A row's first run on a benchmark."""

    samples: Sequence[Sample]
    previews: Path | None
    """The run's folder of image previews."""

    scores: np.ndarray
    """[documents], 0-100; NaN without scores by document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSamples:
    """A benchmark's documents, with each row's answers."""

    title: str
    tasks: tuple[tuple[str, int], ...]
    """The benchmark's tasks with their numbers of documents, in the order of the documents."""

    rows: tuple[RowAnswers | None, ...]
    """Rows in the table's order; None for rows that were not run."""

    baseline: int
    """Index of the baseline among the rows."""

    @property
    def _present(self) -> list[RowAnswers]:
        """The rows that were run, the baseline first."""
        order = [self.rows[self.baseline], *self.rows]
        return [row for row in order if row is not None]

    def index(self) -> dict[str, Any]:
        """Data for filtering and sorting: ids, and by row scores, tokens, differing answers and failures.

        `differs` has one character per document: 1 if the answer differs from the baseline's. If any document has a
        category, `categories` are their names, and `category` is each document's index among them (None without).
        """
        base = self.rows[self.baseline]
        return {
            "title": self.title,
            "tasks": self.tasks,
            "ids": [sample.doc_id for sample in self._present[0].samples],
            "scores": [row and [_short(score) for score in row.scores] for row in self.rows],
            "tokens": [row and [sample.tokens for sample in row.samples] for row in self.rows],
            "differs": [row and base and _differences(row.samples, base.samples) for row in self.rows],
            "failed": [
                row and [place for place, sample in enumerate(row.samples) if sample.failure is not None]
                for row in self.rows
            ],
            **self._categories(),
        }

    def _categories(self) -> dict[str, Any]:
        present = self._present
        own = [
            next((row.samples[place].category for row in present if row.samples[place].category), None)
            for place in range(len(present[0].samples))
        ]
        names = {name: place for place, name in enumerate(dict.fromkeys(filter(None, own)))}
        return {"categories": list(names), "category": [name and names[name] for name in own]} if names else {}

    def documents(self) -> Iterator[tuple[dict[str, Any], dict[str, Path]]]:
        """Yield each document's content, with the files of its images by path within the page's folder."""
        present = self._present
        for place in range(len(present[0].samples)):
            own = [row.samples[place] for row in present]
            names, files = _pictures(present, place)
            question = next((sample.question for sample in own if sample.question), "")
            yield (
                {
                    "question": question,
                    "target": next((sample.target for sample in own if sample.target), ""),
                    "pictures": names,
                    "rows": [row and _shown(row.samples[place], question) for row in self.rows],
                },
                files,
            )


def read_samples(
    measured: Measurements,
    read: ReadSamples,
    previews: Mapping[int, Path],
    rows: Sequence[str],
    benchmarks: Sequence[str],
    baseline: str,
) -> Iterator[BenchmarkSamples]:
    """Yield the benchmarks that any row was run on, one at a time.

    Args:
        measured: the runs' measurements.
        read: reads a run's samples of a benchmark.
        previews: folders of the runs' image previews, by run number.
        rows: row titles in the order of the table, including the baseline.
        benchmarks: benchmark titles.
        baseline: the row to compare with.
    """
    runs = runs_by_cell(measured.cells)

    def answers(row: str, benchmark: str) -> RowAnswers | None:
        number = min(runs.get((row, benchmark), ()), default=None)
        if number is None:
            return None
        samples, scored = read(number, benchmark), measured.documents[benchmark].runs[number].scored
        scores = np.full(len(samples), np.nan) if scored is None else scored.scores
        return RowAnswers(samples=samples, previews=previews.get(number), scores=scores)

    for title in benchmarks:
        if title in measured.documents:
            yield BenchmarkSamples(
                title=title,
                tasks=tuple(measured.documents[title].tasks.items()),
                rows=tuple(answers(row, title) for row in rows),
                baseline=rows.index(baseline),
            )


def _differences(own: Sequence[Sample], base: Sequence[Sample]) -> str:
    return "".join("01"[_differs(one, other)] for one, other in zip(own, base, strict=True))


def _differs(one: Sample, other: Sample) -> bool:
    if one.answer is None or other.answer is None:
        return one.answer is not other.answer
    return first_difference(one.answer, other.answer) is not None


def _shown(sample: Sample, question: str) -> dict[str, Any]:
    """A row's answer with its counts, and its question if that differs; keys without a value are left out."""
    asked = None if sample.question in ("", question) else sample.question
    shown: dict[str, Any] = {"answer": sample.answer, "failure": sample.failure, "reply": sample.reply}
    shown |= {"question": asked, "seconds": sample.seconds, **sample.counts}
    return {key: value for key, value in shown.items() if value is not None}


def _pictures(rows: Sequence[RowAnswers], place: int) -> tuple[list[str | None], dict[str, Path]]:
    """Names of the images or frames from the first row whose run kept previews, None for those without a file; and the
    files."""
    for row in rows:
        if row.previews is None:
            continue
        found = {name: _is_in(row.previews, name) for name in row.samples[place].pictures if name is not None}
        if any(found.values()):
            names = [f"pictures/{name}" if found.get(name or "") else None for name in row.samples[place].pictures]
            return names, {f"pictures/{name}": row.previews / name for name, is_there in found.items() if is_there}
    return [], {}


def _is_in(folder: Path, name: str) -> bool:
    """True if the file is in the folder itself. A symbolic link may lead anywhere, so it is not followed."""
    path = folder / name
    return path.is_file() and not (path.is_symlink() or path.parent.is_symlink())


def _short(score: float) -> float | int | None:
    """A score in its shortest form."""
    value = known(score)
    return int(value) if value is not None and value.is_integer() else value
