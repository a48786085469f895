"""`vico-eval demo`: a table on the built-in benchmark and models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.run import run_suite
from vico_eval.suites import load_suite


def run_demo(
    *,
    table: str,
    limit: int | None,
    out: Path | None,
    rows: Sequence[str],
    num_seeds: int,
    jobs: int | None,
    fresh: bool,
    shared_pass: bool = True,
    html: Path | None = None,
) -> None:
    """Fill a table on the built-in benchmark and print it.

    Args:
        table: `tiny` (ViCO's Table 3) or `internvl-x`.
        limit: number of first documents of each task; None for all.
        out: folder of table and figure. By default `results/measured/<table>`, or `<table>-all` beside it with all
            rows. With a limit or only some rows, a folder under `runs/`, so that a partial table never replaces a
            complete one.
        rows: names of systems, or `all`; empty for the table's own.
        num_seeds: number of runs of each random row, at most the number of seeds on its card.
        jobs: number of processes at once; None for one per core, at most four.
        fresh: run finished rows again.
        shared_pass: answer rows with the same weights together.
        html: folder of an HTML page with the table and its samples; None for no page.

    Raises:
        UserError: the input is invalid, or a row has unanswered documents.
    """
    suite = load_suite(table)
    if out is None and limit is None and (not rows or tuple(rows) == ("all",)):
        out = Path("results/measured") / (f"{suite.table}-all" if rows else suite.table)
    options = RunOptions(
        rows=rows,
        limit=limit,
        num_seeds=num_seeds,
        jobs=jobs,
        device="cpu",
        out=out,
        fresh=fresh,
        shared_pass=shared_pass,
        html=html,
        page=html is not None,
    )
    run_suite(suite.name, options)
