"""What the processes of a run wrote down document by document: `answers.rank0.jsonl`, `failures.rank1.jsonl`, ...

Nothing that was written is deleted: a file or a line that no longer holds is set aside, under a name that says why.
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
"""Lines that are named where many of a file can't be read."""


L = TypeVar("L", bound=StoredLine)


class Journal(Generic[L]):
    """All processes' lines of one kind. A process appends to its own file, and may take lines out of any.

    A file is therefore opened for each line, and under a lock.
    """

    def __init__(self, folder: Path, schema: type[L], kind: str, rank: int, shard: str | None = None) -> None:
        self._folder = folder
        self._schema = schema
        self._kind = kind
        self._shard = shard
        self._own = journal_file(folder, kind, rank, shard)
        self._lock = lock(folder / ".journals.lock")

    def append(self, line: L) -> None:
        """Write a line."""
        # As Python's json writes it, with its blanks: readers look for the account without parsing it.
        text = json.dumps(line.model_dump(mode="json"), allow_nan=False) + "\n"
        with self._lock, self._own.open("a+b") as file:
            # Whatever stopped a process may have left half a line.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.write(b"\n")
            file.write(text.encode())

    def lines(self) -> Iterator[L]:
        """What all files hold that can be read, file by file."""
        for file in self._files():
            for _, text in _numbered(file):
                line, _ = self._parsed(text)
                if line is not None:
                    yield line

    def set_aside(self) -> list[Path]:
        """Put all files under other names, behind which there is `.old1`, `.old2`, ...; the new names."""
        with self._lock:
            return [file.replace(free_path(file.with_name(f"{file.name}.old"))) for file in self._files()]

    def mend(self) -> None:
        """Take out lines that can't be read, into `<file>.bad`, and say which.

        A shard only looks at files of its own: another may be in the middle of a line.
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
                    f"{file}: {len(reasons)} unreadable line(s) are set aside in {aside.name}, and documents "
                    "without another line are asked again"
                )

    def take_out(self, is_meant: Callable[[L], bool], reason: str) -> None:
        """Take the lines that are meant out of all files, into `<file>.<reason>`."""
        with self._lock:
            for file in self._files():
                parsed = ((number, self._parsed(text)[0]) for number, text in _numbered(file))
                if numbers := {number for number, line in parsed if line is not None and is_meant(line)}:
                    _take_out(file, reason, numbers)

    def _files(self) -> list[Path]:
        return journal_files(self._folder, self._kind)

    def _parsed(self, text: bytes) -> tuple[L | None, str]:
        """A line, or why it is none."""
        try:
            return self._schema.model_validate_json(text), ""
        except ValidationError as error:
            return None, " ".join(str(error).split())[:200]


def _take_out(file: Path, reason: str, numbers: Container[int]) -> Path:
    """Move lines to the end of `<file>.<reason>`, which is returned."""
    aside = file.with_name(f"{file.name}.{reason}")
    lines = list(_numbered(file))
    with aside.open("ab") as taken:
        taken.write(b"".join(text + b"\n" for number, text in lines if number in numbers))
        taken.flush()
        os.fsync(taken.fileno())
    write_bytes(file, b"".join(text + b"\n" for number, text in lines if number not in numbers))
    return aside


def _numbered(file: Path) -> Iterator[tuple[int, bytes]]:
    """Number and text of each line that is not blank."""
    for number, text in enumerate(file.read_bytes().split(b"\n"), start=1):
        if text.strip():
            yield number, text
