"""Measure the time that packing saves in ViCO's stage 1."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import packing
from vico_eval.bench.measurements.flash_training import VISION, Settings
from vico_eval.bench.records import DTYPES
from vico_eval.bench.script import Device, Dtype, Name, Out, Threads, check_choice, finish, run_script, use_threads

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "packing"


def run(
    size: Annotated[str, typer.Option(help=f"Shape of the decoder: {', '.join(VISION)}.")] = "small",
    samples: Annotated[int, typer.Option(min=2, help="Number of samples in the micro-batch.")] = 8,
    tiles: Annotated[int, typer.Option(min=1, help="Maximum number of tiles per sample.")] = 4,
    words: Annotated[int, typer.Option(min=4, help="Maximum number of text tokens per sample, half answer.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Number of packed runs.")] = 5,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    threads: Threads = None,
    name: Name = None,
    out: Out = RESULTS,
) -> None:
    """Compare a training step on packed samples with one on padded samples, and write a record and a table.

    \b
    Examples:
      python benchmarks/packing.py
      python benchmarks/packing.py --size 0.6b --device cuda --dtype bfloat16 --tiles 13 --words 512
    """
    check_choice("--size", size, VISION)
    check_choice("--dtype", dtype, DTYPES)
    use_threads(threads)
    settings = Settings(size=size, tiles=tiles, words=words, device=device, dtype=dtype)
    record = packing.measure(settings, samples, rounds)
    positions = record["positions"]
    said = (
        f"Packing is {record['packed']['speedup']:.2f} times as fast, with "
        f"{positions['padded'] / positions['packed']:.2f} times fewer positions."
    )
    finish(record, out, name or f"{size}-{device.partition(':')[0]}-{dtype}", packing.readme, [said])


if __name__ == "__main__":
    run_script(run)
