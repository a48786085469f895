"""Check that a folder can hold a page."""

from pathlib import Path

from vico_eval.errors import OutputError

MARK = ".vico-eval-page"
"""File that marks a folder as a page's."""


def check_page_folder(folder: Path) -> None:
    """Check that a page may be written to `folder`.

    Raises:
        OutputError: the folder contains something else, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The page can't be written to {folder}, which is a file. Give a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise OutputError(
            f"The page can't be written to {folder}: the folder contains files that are not a page of vico-eval. Give "
            "a new or empty folder, or that of an earlier page, which is then replaced."
        )
