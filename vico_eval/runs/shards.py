"""Shards: a run's documents shared among commands that need not know of each other (`--shard 2/8`).

Each writes journals of its own into the run's folder, and a file that says what it has asked. Nothing is scored until
all shards are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, NonNegativeInt

from vico_eval.errors import ConfigError
from vico_eval.files import write_json
from vico_eval.runs.json_text import read_json, validate
from vico_eval.schemas import Closed

MAX_SHARDS = 10_000


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One part of the documents of every task."""

    number: int
    """From 1 on."""

    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MAX_SHARDS:
            raise ConfigError(
                f"shard {self.number}/{self.of} does not exist; expected NUMBER/HOW_MANY, from 1/HOW_MANY to "
                f"HOW_MANY/HOW_MANY, with at most {MAX_SHARDS} shards."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """As part of the names of files."""
        return f"shard{self.number}of{self.of}"

    def has(self, document: int) -> bool:
        """Whether it answers a document, by its number in the task."""
        return shard_of(document, self.of) == self.number - 1


def parse_shard(text: str) -> Shard:
    """A shard as it is typed, `2/8`.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None:
        raise ConfigError(f"the shard is {text!r}; expected NUMBER/HOW_MANY, as in 2/8.")
    return Shard(int(found[1]), int(found[2]))


def shard_of(document: int, shards: int) -> int:
    """The number, from 0 on, of the shard that answers a document: the sum of its digits to base `shards`, modulo that.

    Of every `shards` documents in a row, beginning with a multiple, each shard has one. Unlike the plain remainder this
    is even among processes too, of which each has every n-th document: with two processes and two shards, the remainder
    would leave one process without a document.
    """
    if shards == 1:
        return 0
    total = 0
    while document:
        document, digit = divmod(document, shards)
        total += digit
    return total % shards


class ShardTask(Closed):
    """What became of the documents of a task that a shard has."""

    documents: NonNegativeInt
    failed: NonNegativeInt = 0
    """Those that could not be answered."""


class ShardDone(Closed):
    """`shard2of8.json`: a shard has asked all its documents of these tasks."""

    number: int = Field(ge=1)
    of: int = Field(ge=1)
    tasks: dict[str, ShardTask]


def shard_file(folder: Path, shard: Shard) -> Path:
    """Where a shard of the run in `folder` notes that it has asked all its documents."""
    return folder / f"{shard.name}.json"


def shard_files(folder: Path) -> list[Path]:
    """Those files of all shards."""
    return sorted(folder.glob("shard*of*.json"))


def write_shard(folder: Path, shard: Shard, tasks: Mapping[str, ShardTask]) -> None:
    """Note what a shard has asked, besides the tasks that it has noted before."""
    earlier = read_shards(folder).get(shard, {})
    done = ShardDone(number=shard.number, of=shard.of, tasks={**earlier, **tasks})
    write_json(shard_file(folder, shard), done.model_dump(mode="json"), indent=1)


def read_shards(folder: Path) -> dict[Shard, dict[str, ShardTask]]:
    """What the shards of the run in `folder` have asked, task by task.

    Raises:
        ReportError: a file can't be read.
    """
    found = {}
    for path in shard_files(folder):
        done = validate(ShardDone, read_json(path), str(path))
        found[Shard(done.number, done.of)] = done.tasks
    return found
