"""A folder's new files: written apart, and moved in when all of them are there.

Whatever fails before that, a full disk too, leaves what the folder held as it was.
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
    """Where a folder's new files are written."""

    place: Path
    """Empty at first, on the same disk."""

    folder: Path
    """Where they go."""

    def move_in(self, last: Sequence[str] = ()) -> None:
        """Moves every file to its place in the folder, over an older one of its name; those named `last` at the end.

        Raises:
            OutputError: a folder is in a file's place or a file in a folder's, found before any is moved; or one can't
                be moved.
        """
        names = sorted(path.relative_to(self.place) for path in self.place.rglob("*") if path.is_file())
        names.sort(key=lambda name: name.as_posix() in last)
        for name in names:
            if (self.folder / name).is_dir():
                raise OutputError(f"{self.folder / name} is a folder, where a file is to go. Choose another folder.")
            if (self.folder / name.parent).is_file():
                raise OutputError(
                    f"{self.folder / name.parent} is a file, where a folder is to be. Choose another one."
                )
        try:
            for name in names:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.place / name).replace(self.folder / name)
        except OSError as error:
            raise OutputError(
                f"Not all files could be moved into {self.folder}: {error}. Some there may be older ones; repeat the "
                "command, or choose another folder."
            ) from error


@contextmanager
def staged(folder: Path) -> Iterator[Staging]:
    """A place for the folder's new files; it is gone after the block, with what was not moved in.

    Args:
        folder: made if missing.

    Raises:
        OSError: it can't be made, or nothing can be written into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        yield Staging(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
