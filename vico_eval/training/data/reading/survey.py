"""Surveying a JSONL file before training: the positions of its lines, their ignored keys, and the file's digest."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vico_eval.errors import ConfigError
from vico_eval.training.data.reading.keys import TURNS, unread_keys

EXPECTED = "expected JSON Lines, with one sample on each line: an object with conversations"


@dataclass(frozen=True, eq=False)
class Survey:
    """The results of one pass over a file."""

    lines: np.ndarray
    """[samples, 2]: the offset in bytes and the 1-based number of each line that is not empty."""

    unread: dict[str, int]
    """The ignored keys, each with the number of lines that have it."""

    sha256: str
    """The digest of the whole file."""


def survey(path: Path) -> Survey:
    """Survey a file in one pass.

    Raises:
        ConfigError: the file can't be read, has no lines, or is not in JSON Lines format, such as a JSON array, an
            object over several lines, or another tool's file. A few broken lines among valid ones are no error here;
            they become corrupt samples, which are skipped.
    """
    lines = array("q")  # a list of tuples would need ten times the memory
    unread: Counter[str] = Counter()
    digest = sha256()
    num_objects = num_samples = offset = 0
    try:
        with (
            path.open("rb") as file,
            # disable=None hides the bar if stderr is not a terminal.
            tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=None) as progress,
        ):
            for number, text in enumerate(file, start=1):
                digest.update(text)
                if not lines and _begins_an_array(text):
                    raise ConfigError(f"{path} holds a JSON array; {EXPECTED}. Convert it with: jq -c '.[]' {path}")
                if not text.isspace():
                    lines.extend((offset, number))
                    line = parsed(text)
                    if isinstance(line, dict):
                        num_objects += 1
                        num_samples += any(name in line for name in TURNS)
                        unread.update(unread_keys(line))
                offset += len(text)
                if number % 4096 == 0:
                    progress.update(offset - progress.n)
            progress.update(offset - progress.n)
    except OSError as error:
        raise ConfigError(f"The samples in {path} can't be read: {error}. Pass a JSONL file.") from error
    _check(path, len(lines) // 2, num_objects, num_samples, unread)
    return Survey(np.array(lines).reshape(-1, 2), dict(unread.most_common()), digest.hexdigest())


def parsed(text: bytes) -> Any:
    """Return the JSON value of a line, or the exception if the line can't be parsed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        return error


def _begins_an_array(text: bytes) -> bool:
    return text.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _check(path: Path, num_lines: int, num_objects: int, num_samples: int, unread: Counter[str]) -> None:
    if not num_lines:
        raise ConfigError(f"{path} has no samples; expected a JSONL file with one on each line.")
    if num_lines > 1 and 2 * num_objects < num_lines:
        raise ConfigError(
            f"{num_lines - num_objects} of the {num_lines} lines of {path} are not JSON objects; {EXPECTED}. If the "
            "file is one JSON value over several lines, write each sample on its own line."
        )
    if num_objects and not num_samples:
        found = ", ".join(unread) or "nothing"
        raise ConfigError(f"No line of {path} has {' or '.join(TURNS)} (keys found: {found}); {EXPECTED}.")
