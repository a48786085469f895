"""Measure the speed of lmms-eval with this package's adapter and with its own `internvl_hf`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from loguru import logger

from vico_eval.bench.measurements import evaluation
from vico_eval.bench.script import Device, Out, Threads, check_choice, finish, run_script, use_threads

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "evaluation"


def run(
    shape: Annotated[
        str,
        typer.Option(
            help="tiny (the built-in model), 0.6b or 8b (random weights), or 0.6b-pairs (two questions per image)."
        ),
    ] = "tiny",
    dtype: Annotated[str, typer.Option(help="Data type of internvl_hf: bfloat16 or float32.")] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Number of evaluations of each.")] = 5,
    device: Device = "cpu",
    threads: Threads = None,
    name: Annotated[str | None, typer.Option(help="Name of the record. Default: shape, device and dtype.")] = None,
    out: Out = RESULTS,
) -> None:
    """Measure how fast lmms-eval is with this package's adapter and with its own internvl_hf.

    Writes a record and a table to results/measured/evaluation. On two CPU cores a round of tiny or of 0.6b takes two or
    three minutes, and one of tiny in bfloat16, which is slow on many CPUs, a quarter of an hour. 8b needs a GPU.

    \b
    Examples:
      python benchmarks/evaluation.py
      python benchmarks/evaluation.py --dtype bfloat16
      python benchmarks/evaluation.py --shape 0.6b --rounds 2
    """
    check_choice("--shape", shape, evaluation.SHAPES)
    check_choice("--dtype", dtype, evaluation.DTYPES)
    use_threads(threads)
    logger.remove()  # lmms-eval's log lines would bury the output
    record = evaluation.measure(shape, dtype, rounds, device)
    finish(record, out, name or f"{shape}-{device}-{dtype}", evaluation.readme, [evaluation.summary(record)])


if __name__ == "__main__":
    run_script(run)
