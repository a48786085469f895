"""Progress of a run that another process is answering."""

from __future__ import annotations

from pathlib import Path

from vico_eval.runs.folders import ANSWERS, journal_files


class AnswerCount:
    """Counts a run's answers so far, which are the lines of its journals. Each line is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, int]] = {}
        """Bytes read so far and the number of lines in them, by file."""

    def count(self) -> int:
        """The current count, without a line that is still being written."""
        for path in journal_files(self._folder, ANSWERS):
            offset, before = self._read.get(path, (0, 0))
            if path.stat().st_size < offset:  # the file was replaced, or lines were taken out
                offset, before = 0, 0
            with path.open("rb") as file:
                file.seek(offset)
                *lines, _ = file.read().split(b"\n")
            after = before + sum(1 for line in lines if line.strip())
            self._read[path] = offset + sum(len(line) + 1 for line in lines), after
        return sum(lines for _, lines in self._read.values())
