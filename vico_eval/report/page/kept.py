"""Store the documents shown on a page on disk, from reading a run until the page is written.

A page shows the answers of all rows side by side, and all documents of all runs would take gigabytes of memory.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from vico_eval.errors import OutputError
from vico_eval.runs.results import Document
from vico_eval.runs.schema import TokenAccount

# Valid digests. They become part of a path, so anything else is rejected.
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


class Sample(NamedTuple):
    """A document in one run as shown on a page, with JSON-compatible values."""

    doc_id: int | str
    question: str
    target: str
    answer: str | None
    failure: str | None
    tokens: int | None
    """Visual tokens per layer, averaged over layers; None without an account."""

    counts: dict[str, Any]
    """Numbers and grids of tiles, under the page's names; empty without an account."""

    pictures: list[str | None]
    """Preview files of the images or frames, within the run's folder of previews; None for those without one."""

    reply: str | None = None
    """The model's reply before a task's filters; None if it equals the answer or was not kept."""

    seconds: float | None = None
    """Time of encoding and of the row's own work, summed over its answers; a batch's time is divided evenly."""

    category: str | None = None
    """Category within the benchmark; None without one."""


def sample_of(document: Document, category: str = "") -> Sample:
    """Convert a document and its category for the page."""
    accounts = document.account or ()
    counts: dict[str, Any] = {}
    if document.account is not None:
        counts["tiles"] = sum(account.tiles for account in accounts)
        counts["compressed"] = sum(account.compressed_tiles for account in accounts)
        counts |= _tiling(accounts)
    return Sample(
        doc_id=document.doc_id,
        question=document.question,
        target=document.target,
        answer=document.answer,
        failure=document.failure,
        tokens=_tokens(document),
        counts=counts,
        pictures=list(_names(accounts)),
        reply=_reply(document),
        seconds=_seconds(document),
        category=category or None,
    )


class KeptSamples:
    """The samples of a report's runs, in one file per run and benchmark."""

    def __init__(self, folder: Path, benchmarks: Sequence[str]) -> None:
        self._folder = folder
        self._places = {benchmark: place for place, benchmark in enumerate(benchmarks)}

    def write(
        self, run: int, benchmark: str, documents: Sequence[Document], categories: Sequence[str] | None = None
    ) -> None:
        """Store a run's samples of a benchmark.

        Args:
            run: number of the run.
            benchmark: title of the benchmark.
            documents: the run's documents of the benchmark.
            categories: the documents' categories, empty for documents without one; None if the benchmark has none.

        Raises:
            OutputError: the file can't be written.
        """
        path = self._file(run, benchmark)
        try:
            known = categories or [""] * len(documents)
            samples = [sample_of(*each) for each in zip(documents, known, strict=True)]
            path.write_text(json.dumps(samples), encoding="ascii")
        except OSError as error:
            raise OutputError(
                f"The page's documents can't be stored in {path}: {error}. Make room, or set TMPDIR to another folder."
            ) from error

    def read(self, run: int, benchmark: str) -> list[Sample]:
        """Read a run's samples of a benchmark."""
        return [Sample(*values) for values in json.loads(self._file(run, benchmark).read_text(encoding="ascii"))]

    def _file(self, run: int, benchmark: str) -> Path:
        return self._folder / f"{run}-{self._places[benchmark]}.json"


def _tiling(accounts: Sequence[TokenAccount]) -> dict[str, Any]:
    """Grids of all images, with scores and compressed indices of all tiles; empty if an account lacks grids."""
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


def _names(accounts: Sequence[TokenAccount]) -> Iterator[str | None]:
    for account in accounts:
        for number in range(len(account.grids or ())):
            if account.media is None or not _DIGEST.fullmatch(account.media):
                yield None
            else:
                yield f"{account.media[:2]}/{account.media}-{number}.jpg"


def _reply(document: Document) -> str | None:
    if document.said is None or document.answer is None:
        return None
    said = "\n".join(document.said)
    return None if said == document.answer else said


def _seconds(document: Document) -> float | None:
    if document.seconds is None:
        return None
    # These are shares of a batch's time, so more digits would be meaningless.
    return float(f"{sum(answer.encoding + answer.own for answer in document.seconds):.3g}")


def _tokens(document: Document) -> int | None:
    if document.account is None:
        return None
    return round(sum(account.mean_layer_tokens for account in document.account))
