"""How far a run is that another process is answering."""

from __future__ import annotations

from pathlib import Path

from vico_eval.runs.folders import ANSWERS, journal_files


class AnswerCount:
    """Documents of a run that have an answer so far: lines of its answers' journal, of which each is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, int]] = {}
        """Of each file, the bytes that were read, and the lines in them."""

    def count(self) -> int:
        """As of now; a line that is being written does not count yet."""
        for path in journal_files(self._folder, ANSWERS):
            offset, before = self._read.get(path, (0, 0))
            if path.stat().st_size < offset:  # set aside and begun anew, or lines were taken out
                offset, before = 0, 0
            with path.open("rb") as file:
                file.seek(offset)
                *lines, _ = file.read().split(b"\n")
            after = before + sum(1 for line in lines if line.strip())
            self._read[path] = offset + sum(len(line) + 1 for line in lines), after
        return sum(lines for _, lines in self._read.values())
