"""Measure the time that a shared pass over the documents saves for rows with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import passes
from vico_eval.bench.measurements.pass_films import Films
from vico_eval.bench.records import SIZES
from vico_eval.bench.script import Device, Out, Threads, check_choice, finish, run_script, use_threads

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "passes"


def run(
    load: Annotated[str, typer.Option(help=f"Load to measure: {', '.join(passes.GOALS)}.")] = passes.TABLE,
    limit: Annotated[int | None, typer.Option(min=1, help="table: documents per task. Default: all.")] = None,
    size: Annotated[str, typer.Option(help=f"sweep: shape of the model: {', '.join(SIZES)}.")] = "0.6b",
    documents: Annotated[int, typer.Option(min=1, help="sweep: number of images, of one tile each.")] = 2,
    films: Annotated[int, typer.Option(min=1, help="films: number of videos, with two questions each.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, help="Number of runs of all rows in each way.")] = 1,
    device: Device = "cpu",
    threads: Threads = None,
    name: Annotated[str | None, typer.Option(help="Name of the record. Default: load and device.")] = None,
    out: Out = RESULTS,
) -> None:
    """Measure the time that a shared pass saves over answering rows one after another.

    table is `vico-eval run tiny` with and without shared passes; it chooses its own number of threads. sweep is eight
    methods at four budgets on a random model. films is six methods on videos. Writes a record and a table to
    results/measured/passes, but only if all answers and token accounts of both ways are equal. On two CPU cores each
    load takes about ten minutes per round.

    \b
    Examples:
      python benchmarks/passes.py --load table --limit 5
      python benchmarks/passes.py --load sweep --size small
      python benchmarks/passes.py --load films --films 2
    """
    check_choice("--load", load, passes.GOALS)
    check_choice("--size", size, SIZES)
    use_threads(threads)
    settings = {
        passes.TABLE: {"limit": limit},
        passes.SWEEP: {"size": size, "documents": documents},
        passes.FILMS: {"films": Films(number=films)},
    }
    record = passes.measure(load, rounds, device, settings[load])
    finish(record, out, name or f"{load}-{device}", passes.readme, passes.summary(record))


if __name__ == "__main__":
    run_script(run)
