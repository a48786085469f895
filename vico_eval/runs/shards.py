"""Shards: a run's documents divided among independent commands (`--shard 2/8`).

Each shard writes its own journals to the run's folder, and a file with the tasks that it has finished. Scoring waits
for all shards.
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
    """One part of every task's documents."""

    number: int
    """Number of the shard, starting at 1."""

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
        """Name of the shard in file names."""
        return f"shard{self.number}of{self.of}"

    def has(self, document: int) -> bool:
        """True if this shard answers the document with this number in its task."""
        return shard_of(document, self.of) == self.number - 1


def parse_shard(text: str) -> Shard:
    """Parse a shard such as `2/8`.

    Raises:
        ConfigError: the text has another form, or there is no such shard.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None:
        raise ConfigError(f"the shard is {text!r}; expected NUMBER/HOW_MANY, as in 2/8.")
    return Shard(int(found[1]), int(found[2]))


def shard_of(document: int, shards: int) -> int:
    """The index, from 0, of the shard that answers a document: the digit sum in base `shards`, modulo `shards`.

    In every block of `shards` documents that starts at a multiple of `shards`, each shard has one. Unlike the plain
    remainder, this also balances processes, each of which has every n-th document: with two processes and two shards,
    the remainder would leave one process without documents.
    """
    if shards == 1:
        return 0
    total = 0
    while document:
        document, digit = divmod(document, shards)
        total += digit
    return total % shards


class ShardTask(Closed):
    """Outcome of a task's documents in one shard."""

    documents: NonNegativeInt
    failed: NonNegativeInt = 0
    """Number of documents that could not be answered."""


class ShardDone(Closed):
    """`shard2of8.json`: the tasks that a shard has finished."""

    number: int = Field(ge=1)
    of: int = Field(ge=1)
    tasks: dict[str, ShardTask]


def shard_file(folder: Path, shard: Shard) -> Path:
    """The file in which a shard of the run in `folder` records the tasks that it has finished."""
    return folder / f"{shard.name}.json"


def shard_files(folder: Path) -> list[Path]:
    """The files of all shards, sorted."""
    return sorted(folder.glob("shard*of*.json"))


def write_shard(folder: Path, shard: Shard, tasks: Mapping[str, ShardTask]) -> None:
    """Record that a shard has finished `tasks`, in addition to those recorded before."""
    earlier = read_shards(folder).get(shard, {})
    done = ShardDone(number=shard.number, of=shard.of, tasks={**earlier, **tasks})
    write_json(shard_file(folder, shard), done.model_dump(mode="json"), indent=1)


def read_shards(folder: Path) -> dict[Shard, dict[str, ShardTask]]:
    """Read which tasks the shards of the run in `folder` have finished.

    Raises:
        ReportError: a file can't be read.
    """
    found = {}
    for path in shard_files(folder):
        done = validate(ShardDone, read_json(path), str(path))
        found[Shard(done.number, done.of)] = done.tasks
    return found
