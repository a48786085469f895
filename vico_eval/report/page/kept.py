"""What a page shows of each document, kept on disk from the reading of a run until the page is written.

A page puts the answers of all rows side by side, and all documents of all runs at once would take gigabytes.
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

# What a digest may be: it becomes part of a path.
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


class Sample(NamedTuple):
    """What a page shows of a document in one run; of what JSON has."""

    doc_id: int | str
    question: str
    target: str
    answer: str | None
    failure: str | None
    tokens: int | None
    """Visual tokens that a layer saw, on average over layers; None without an account."""

    counts: dict[str, Any]
    """Tiles and what became of them, by the page's names; empty without an account."""

    pictures: list[str | None]
    """A picture or frame each: its file in the run's folder of previews; None where it can have none."""

    reply: str | None = None
    """What the model said before a task's filters took something out; None where that is the answer, or not kept."""

    seconds: float | None = None
    """Encoding and the row's own work, summed over its answers: even shares of what their batches took."""

    category: str | None = None
    """Of the benchmark's; None where it has none."""


def sample_of(document: Document, category: str = "") -> Sample:
    """What a page shows of a document, and of what category it is."""
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
    """The samples of a report's runs by number and benchmark, a file each in a folder of their own."""

    def __init__(self, folder: Path, benchmarks: Sequence[str]) -> None:
        self._folder = folder
        self._places = {benchmark: place for place, benchmark in enumerate(benchmarks)}

    def write(
        self, run: int, benchmark: str, documents: Sequence[Document], categories: Sequence[str] | None = None
    ) -> None:
        """Keeps what a page shows of the documents.

        Args:
            run: its number.
            benchmark: title.
            documents: of the run and benchmark.
            categories: of the documents, empty where one has none; None where the benchmark has none.

        Raises:
            OutputError: there is no room for it.
        """
        path = self._file(run, benchmark)
        try:
            known = categories or [""] * len(documents)
            samples = [sample_of(*each) for each in zip(documents, known, strict=True)]
            path.write_text(json.dumps(samples), encoding="ascii")
        except OSError as error:
            raise OutputError(
                f"The page's documents can't be kept in {path}: {error}. Make room, or let TMPDIR name another folder."
            ) from error

    def read(self, run: int, benchmark: str) -> list[Sample]:
        """What was kept of a run's documents of a benchmark."""
        return [Sample(*values) for values in json.loads(self._file(run, benchmark).read_text(encoding="ascii"))]

    def _file(self, run: int, benchmark: str) -> Path:
        return self._folder / f"{run}-{self._places[benchmark]}.json"


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
    # Shares of a batch's time: more digits say nothing.
    return float(f"{sum(answer.encoding + answer.own for answer in document.seconds):.3g}")


def _tokens(document: Document) -> int | None:
    if document.account is None:
        return None
    return round(sum(account.mean_layer_tokens for account in document.account))
