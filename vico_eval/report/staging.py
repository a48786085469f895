"""Write a folder's new files to a temporary place, and move them in once all are complete.

A failure before that, such as a full disk, leaves the folder unchanged.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vico_eval.errors import OutputError


@dataclass(frozen=True, slots=True)
class Staging:
    """The temporary place of a folder's new files."""

    place: Path
    """Temporary folder, initially empty, on the same disk."""

    folder: Path
    """Destination folder."""

    def move_in(self, last: Sequence[str] = ()) -> None:
        """Move all files into the folder, replacing files of the same name; those in `last` are moved last.

        Raises:
            OutputError: a folder exists where a file should go or the reverse, detected before any move; or a move
                fails.
        """
        names = sorted(path.relative_to(self.place) for path in self.place.rglob("*") if path.is_file())
        names.sort(key=lambda name: name.as_posix() in last)
        for name in names:
            if (self.folder / name).is_dir():
                raise OutputError(
                    f"{self.folder / name} is a folder, but a file should go there. Choose another folder."
                )
            if (self.folder / name.parent).is_file():
                raise OutputError(
                    f"{self.folder / name.parent} is a file, but should be a folder. Choose another folder."
                )
        try:
            for name in names:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.place / name).replace(self.folder / name)
        except OSError as error:
            raise OutputError(
                f"Not all files could be moved to {self.folder}: {error}. Some files there may be old; repeat the "
                "command, or choose another folder."
            ) from error


@contextmanager
def staged(folder: Path) -> Iterator[Staging]:
    """Yield a temporary place for the folder's new files, which is deleted afterwards with any files not moved.

    Args:
        folder: the destination; created if missing.

    Raises:
        OSError: the folder can't be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        yield Staging(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
