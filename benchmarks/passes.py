"""What one pass over the documents saves where several rows share their weights."""

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
    load: Annotated[str, typer.Option(help=f"What is answered: {', '.join(passes.GOALS)}.")] = passes.TABLE,
    limit: Annotated[int | None, typer.Option(min=1, help="table: first documents of each task. Default: all.")] = None,
    size: Annotated[str, typer.Option(help=f"sweep: shape of the model: {', '.join(SIZES)}.")] = "0.6b",
    documents: Annotated[int, typer.Option(min=1, help="sweep: pictures, of one tile each.")] = 2,
    films: Annotated[int, typer.Option(min=1, help="films: how many, with two questions about each.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, help="Times that all rows are answered in each way.")] = 1,
    device: Device = "cpu",
    threads: Threads = None,
    name: Annotated[str | None, typer.Option(help="Of the record. Default: load and device.")] = None,
    out: Out = RESULTS,
) -> None:
    """Measure what one pass saves over rows that are answered one after the other.

    table is `vico-eval run tiny` with and without passes, which chooses its own number of threads. sweep is eight
    methods at four budgets on a random model. films is six methods on films. No record is written unless all answers
    and token accounts of both ways are equal. Writes a record and a table to results/measured/passes. On two CPU cores
    each load takes about ten minutes a round.

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
