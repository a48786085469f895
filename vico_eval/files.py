"""Files whose loss would hurt: written whole or not at all, and held by one process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: whenever the machine stops, it has its old content or the new one, never half of one."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # still there only where the disk was full


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 2) -> None:
    """`value` as strict JSON, written as by `write_text`.

    Raises:
        ValueError: a number that is not finite, which JSON has no word for.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk: or a machine that loses its power leaves zeros under its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def lock(path: Path) -> FileLock:
    """The lock of that file: one process has it at a time, as often as it likes; the system frees it when that ends."""
    return FileLock(path, is_singleton=True, thread_local=False)
