"""`vico-eval checkpoints`: the checkpoints that suites know by size or table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import get_args

from vico_eval.commands import options


@dataclass(frozen=True, slots=True)
class KnownCheckpoint:
    """A line of models/checkpoints.yaml."""

    size: str
    """What `vico-eval run --checkpoint` takes for all kinds of weights at once; or a built-in table."""

    weights: str
    """Which rows use it: `base`, `vico`, `pvtc`, ..."""

    checkpoint: str
    """A hub id or a built-in name."""

    built_in: bool
    """Whether it ships with the package."""


def known_checkpoints() -> Iterator[KnownCheckpoint]:
    """Every checkpoint that models/checkpoints.yaml names."""
    from vico_eval.cards import Weights, load_checkpoints
    from vico_eval.paths import models_dir

    for size, named in load_checkpoints(models_dir()).items():
        for weights in get_args(Weights):
            checkpoint = getattr(named, weights)
            if checkpoint is not None:
                yield KnownCheckpoint(size, weights, checkpoint, (models_dir() / checkpoint).is_dir())


def checkpoints(as_json: options.Json = False) -> None:
    """List the known checkpoints by size and kind of weights.

    The built-in ones ship with the package. The others are on the Hugging Face hub and are downloaded when they are
    first used. `vico-eval run --checkpoint` takes a size or a checkpoint; every other command takes a checkpoint, which
    can also be a folder or another hub id.

    \b
    Examples:
      vico-eval checkpoints
      vico-eval checkpoints --json
    """
    from vico_eval.commands.output import print_json, print_table

    found = list(known_checkpoints())
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        rows = [(one.size, one.weights, one.checkpoint, "package" if one.built_in else "hub") for one in found]
        print_table(("Size", "Weights", "Checkpoint", "From"), rows)
