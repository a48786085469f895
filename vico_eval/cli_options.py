"""Options that several commands share, and the largest number that each option accepts.

A larger number is a typing error, and the user would wait for it. Where commands describe an option of the same name
in words of their own, its function takes these and adds the bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

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

Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: a GPU where there is one.")]

SeparateRows = Annotated[
    bool,
    typer.Option(
        "--no-shared-pass",
        help="Answer each row by itself. By default rows of the same weights share a pass: pictures are read and "
        "encoded once for all of them.",
    ),
]

TrainingConfig = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; models/training has examples.")]

TrainingProcesses = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_TRAINING_PROCESSES, help="Processes, one a GPU (DDP). Default: this one."),
]

AccelerateConfig = Annotated[
    Path | None,
    typer.Option(help="Accelerate's own configuration (accelerate config): DDP, FSDP2, DeepSpeed; any number of GPUs."),
]


def limit(description: str) -> Any:
    """`--limit`: the first documents of each task."""
    return typer.Option(min=1, max=MAX_DOCUMENTS, help=description)


def seeds(description: str) -> Any:
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
