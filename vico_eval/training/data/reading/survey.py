"""What a JSONL file is before anything is trained on it: where its lines are, what they hold, and its digest."""

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

EXPECTED = "expected JSON lines: on each line one sample, an object with conversations"


@dataclass(frozen=True, eq=False)
class Survey:
    """A file that was read once."""

    lines: np.ndarray
    """[samples, 2]: offset in bytes, number of the line from 1; empty lines are left out."""

    unread: dict[str, int]
    """In how many lines each key is that nothing is done with."""

    sha256: str
    """Of the whole file."""


def survey(path: Path) -> Survey:
    """Read a file once.

    Raises:
        ConfigError: it can't be read, has no line, or is not of JSON lines: a JSON array, an object that takes several
            lines, another tool's file. Some broken lines among others are corrupt samples, which are skipped.
    """
    lines = array("q")  # a list of tuples would take ten times the memory
    unread: Counter[str] = Counter()
    digest = sha256()
    num_objects = num_samples = offset = 0
    try:
        with (
            path.open("rb") as file,
            # None: no bar where stderr is no terminal.
            tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=None) as progress,
        ):
            for number, text in enumerate(file, start=1):
                digest.update(text)
                if not lines and _begins_an_array(text):
                    raise ConfigError(
                        f"{path} holds a JSON array; {EXPECTED}. Write its elements on a line each, as does: "
                        f"jq -c '.[]' {path}"
                    )
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
        raise ConfigError(f"The samples of {path} can't be read: {error}. Pass a JSONL file.") from error
    _check(path, len(lines) // 2, num_objects, num_samples, unread)
    return Survey(np.array(lines).reshape(-1, 2), dict(unread.most_common()), digest.hexdigest())


def parsed(text: bytes) -> Any:
    """The JSON value of a line, or the error that says why it is none."""
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
            f"{num_lines - num_objects} of the {num_lines} lines of {path} are no JSON objects; {EXPECTED}. If it is "
            "one JSON value over several lines, write each sample on a line of its own."
        )
    if num_objects and not num_samples:
        found = ", ".join(unread) or "nothing"
        raise ConfigError(f"No line of {path} has {' or '.join(TURNS)}, they hold {found}; {EXPECTED}.")
