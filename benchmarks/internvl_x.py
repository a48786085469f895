"""Measure the cost of InternVL-X's parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import internvl_x
from vico_eval.bench.measurements.internvl_x import VISION_WIDTHS
from vico_eval.bench.records import DTYPES
from vico_eval.bench.script import (
    Device,
    Dtype,
    Name,
    Out,
    Threads,
    check_choice,
    finish,
    picture_size,
    run_script,
    use_threads,
)

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "internvl-x-cost"


def run(
    size: Annotated[str, typer.Option(help=f"Shape of the decoder: {', '.join(VISION_WIDTHS)}.")] = "0.6b",
    rounds: Annotated[int, typer.Option(min=1, help="Number of measurements per row.")] = 7,
    picture: Annotated[str, typer.Option(help="Image size in px, for the rows with several tiles.")] = "800x600",
    max_tiles: Annotated[int, typer.Option(min=1, help="Maximum number of tiles, without the thumbnail.")] = 6,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    threads: Threads = None,
    name: Name = None,
    out: Out = RESULTS,
) -> None:
    """Measure the cost of InternVL-X's parts: visual tokens by layer, operations, and prefill time relative to Base.

    Builds random models with a shared Qwen3 decoder, lets each answer a question about one image for its token account,
    measures their prefill in turns, and writes a record and a table to results/measured/internvl-x-cost.

    \b
    Examples:
      python benchmarks/internvl_x.py --size small
      python benchmarks/internvl_x.py --size 0.6b --device cuda --dtype bfloat16
    """
    check_choice("--size", size, VISION_WIDTHS)
    check_choice("--dtype", dtype, DTYPES)
    pixels = picture_size("--picture", picture)
    use_threads(threads)
    settings = internvl_x.Settings(size=size, picture=pixels, max_tiles=max_tiles, device=device, dtype=dtype)
    record = internvl_x.measure(settings, rounds)
    finish(record, out, name or f"{size}-{device}-{dtype}", internvl_x.readme, internvl_x.summary(record))


if __name__ == "__main__":
    run_script(run)
