"""Options that several commands share, and the largest number that each option accepts.

A larger number is a typing error, and the user would wait for it. Where commands describe an option of the same name
in words of their own, its function takes these and adds the bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vico_eval.commands import completion

MAX_DOCUMENTS: Final = 10_000_000
"""Per task. The largest benchmark has some ten thousand."""

MAX_BATCH_SIZE: Final = 4096
MAX_PROCESSES: Final = 4096
MAX_GPUS: Final = 1024
MAX_TRAINING_PROCESSES: Final = 1024
MAX_JOBS: Final = 1024
MAX_SEEDS: Final = 1000
MAX_ROUNDS: Final = 10_000
MAX_REQUESTS: Final = 100_000
"""Per number in a server's table. The requests of a round are made before it begins, about 10 KB each."""

MAX_CONCURRENCY: Final = 10_000
MAX_TOKENS: Final = 1_000_000
MAX_SECONDS: Final = 7 * 24 * 3600
MAX_MINUTES: Final = MAX_SECONDS // 60

A_CHECKPOINT = "a folder, a hub id or a built-in name"
"""What names a checkpoint, for help texts."""

Device = Annotated[str | None, typer.Option(help="Device, as in cpu or cuda. Default: a GPU if there is one.")]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]

ModelArgs = Annotated[
    str,
    typer.Option(
        help="Further arguments of the model and the method: name=value, separated by commas, as in "
        "max_tiles=12,dtype=bfloat16."
    ),
]

SeparateRows = Annotated[
    bool,
    typer.Option(
        "--no-shared-pass",
        help="Answer each row by itself. By default, rows on the same weights share a pass, which reads and encodes "
        "each picture once for all of them.",
    ),
]

TrainingConfig = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; models/training has examples.")]

TrainingProcesses = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_TRAINING_PROCESSES, help="Number of processes, one for each GPU (DDP). Default: this process."
    ),
]

AccelerateConfig = Annotated[
    Path | None,
    typer.Option(
        help="Configuration file written by `accelerate config`, for DDP, FSDP2 or DeepSpeed on any number of GPUs."
    ),
]


def checkpoint(description: str = f"Checkpoint: {A_CHECKPOINT}.") -> Any:
    """`--checkpoint`: the model."""
    return typer.Option(help=description, autocompletion=completion.checkpoints)


def methods(description: str) -> Any:
    """`--method` or `--methods`: names of methods."""
    return typer.Option(help=description, autocompletion=completion.methods)


def rows(description: str) -> Any:
    """`--rows`: systems of a table."""
    return typer.Option(help=description, autocompletion=completion.rows)


def limit(description: str) -> Any:
    """`--limit`: the first documents of each task."""
    return typer.Option(min=1, max=MAX_DOCUMENTS, help=description)


def seeds(description: str = "Number of seeds for stochastic methods, at most the three that a card lists.") -> Any:
    """`--seeds`: how many times a stochastic method runs."""
    return typer.Option(min=1, max=MAX_SEEDS, help=description)


def jobs(description: str) -> Any:
    """`--jobs`: rows, or passes of several rows, that run at once."""
    return typer.Option(min=1, max=MAX_JOBS, help=description)


def batch_size(description: str) -> Any:
    """`--batch-size`: documents that are answered together."""
    return typer.Option(min=1, max=MAX_BATCH_SIZE, help=description)


def rounds(description: str) -> Any:
    """`--rounds`: repetitions of a measurement of speed."""
    return typer.Option(min=1, max=MAX_ROUNDS, help=description)
