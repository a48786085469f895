"""Measure the cost of ViCO's stage 1."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import flash_training
from vico_eval.bench.measurements.flash_training import VISION
from vico_eval.bench.records import write_record
from vico_eval.bench.script import Out, check_choice, run_script, use_threads

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "flash-training"


def run(
    size: Annotated[str, typer.Option(help=f"Shape of the decoder: {', '.join(VISION)}.")] = "small",
    tiles: Annotated[int, typer.Option(min=4, help="Number of tiles in the sample.")] = 4,
    words: Annotated[int, typer.Option(min=2, help="Number of text tokens; the last half is the answer.")] = 64,
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Data type: float32, or bfloat16 with autocast.")] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds; each runs every share once.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Number of CPU threads.")] = 1,
    out: Out = RESULTS,
) -> None:
    """Measure memory and time of ViCO's stage 1, and write a record and a table to results/measured/flash-training.

    \b
    Examples:
      python benchmarks/flash_training.py
      python benchmarks/flash_training.py --size 0.6b --device cuda --dtype bfloat16 --tiles 13 --words 256
    """
    check_choice("--size", size, VISION)
    check_choice("--dtype", dtype, ("float32", "bfloat16"))
    use_threads(threads)
    settings = flash_training.Settings(size=size, tiles=tiles, words=words, device=device, dtype=dtype)
    record = flash_training.measure(settings, rounds)
    path = write_record(record, out, f"{size}-{device.split(':')[0]}-{dtype}", flash_training.readme)
    typer.echo(path.with_name("README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_script(run)
