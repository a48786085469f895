"""Journals, to which a run's processes append one line per document: `answers.rank0.jsonl`, `failures.rank1.jsonl`, ...

Nothing is deleted: an outdated file or line is moved aside, to a name that gives the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from vico_eval.files import lock, write_bytes
from vico_eval.logs import logger
from vico_eval.paths import free_path
from vico_eval.runs.folders import journal_file, journal_files
from vico_eval.runs.schema import StoredLine

MAX_NAMED = 5
"""Number of unreadable lines to list per file."""


L = TypeVar("L", bound=StoredLine)


class Journal(Generic[L]):
    """All processes' lines of one kind. A process appends to its own file, and may take lines out of any file.

    A file is therefore opened anew for each line, under a lock.
    """

    def __init__(self, folder: Path, schema: type[L], kind: str, rank: int, shard: str | None = None) -> None:
        self._folder = folder
        self._schema = schema
        self._kind = kind
        self._shard = shard
        self._own = journal_file(folder, kind, rank, shard)
        self._lock = lock(folder / ".journals.lock")

    def append(self, line: L) -> None:
        """Append a line to this process's file."""
        # Keep the spacing of Python's json: readers find the account without parsing the line.
        text = json.dumps(line.model_dump(mode="json"), allow_nan=False) + "\n"
        with self._lock, self._own.open("a+b") as file:
            # A process that was stopped may have left half a line.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.write(b"\n")
            file.write(text.encode())

    def lines(self) -> Iterator[L]:
        """Yield the readable lines of all files, file by file."""
        for file in self._files():
            for _, text in _numbered(file):
                line, _ = self._parsed(text)
                if line is not None:
                    yield line

    def set_aside(self) -> list[Path]:
        """Rename all files with `.old1`, `.old2`, ... appended, and return the new names."""
        with self._lock:
            return [file.replace(free_path(file.with_name(f"{file.name}.old"))) for file in self._files()]

    def mend(self) -> None:
        """Move unreadable lines to `<file>.bad` and log them.

        A shard checks only its own files, since another shard may be in the middle of writing a line.
        """
        with self._lock:
            for file in journal_files(self._folder, self._kind, self._shard):
                reasons = {}
                for number, text in _numbered(file):
                    line, reason = self._parsed(text)
                    if line is None:
                        reasons[number] = reason
                if not reasons:
                    continue
                aside = _take_out(file, "bad", reasons)
                for number in list(reasons)[:MAX_NAMED]:
                    logger.warning(f"{file}, line {number} can't be read: {reasons[number]}")
                logger.warning(
                    f"{file}: moved {len(reasons)} unreadable line(s) to {aside.name}; their documents are asked again "
                    "unless they have another line"
                )

    def take_out(self, is_meant: Callable[[L], bool], reason: str) -> None:
        """Move the lines for which `is_meant` is true from all files to `<file>.<reason>`."""
        with self._lock:
            for file in self._files():
                parsed = ((number, self._parsed(text)[0]) for number, text in _numbered(file))
                if numbers := {number for number, line in parsed if line is not None and is_meant(line)}:
                    _take_out(file, reason, numbers)

    def _files(self) -> list[Path]:
        return journal_files(self._folder, self._kind)

    def _parsed(self, text: bytes) -> tuple[L | None, str]:
        """Parse a line; the second value is the reason if it can't be parsed."""
        try:
            return self._schema.model_validate_json(text), ""
        except ValidationError as error:
            return None, " ".join(str(error).split())[:200]


def _take_out(file: Path, reason: str, numbers: Container[int]) -> Path:
    """Move the numbered lines to the end of `<file>.<reason>`, and return that file."""
    aside = file.with_name(f"{file.name}.{reason}")
    lines = list(_numbered(file))
    with aside.open("ab") as taken:
        taken.write(b"".join(text + b"\n" for number, text in lines if number in numbers))
        taken.flush()
        os.fsync(taken.fileno())
    write_bytes(file, b"".join(text + b"\n" for number, text in lines if number not in numbers))
    return aside


def _numbered(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of each line that is not blank."""
    for number, text in enumerate(file.read_bytes().split(b"\n"), start=1):
        if text.strip():
            yield number, text
