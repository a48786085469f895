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
        limit: first documents of each task; None for all.
        out: folder of table and picture. Default: `results/measured/<table>`, with all rows `<table>-all` beside it;
            with a limit or only some rows, a folder under `runs/`, so that a partial table never takes the place of
            another.
        rows: names of systems, or `all`; the table's own where empty.
        num_seeds: runs of each random row, at most as many as its card has seeds.
        jobs: processes at once; None for one a core, at most four.
        fresh: whether complete rows are repeated.
        shared_pass: whether rows of the same weights are answered together.
        html: folder of the table as a page with its samples; None for none.

    Raises:
        UserError: bad input, or a row whose documents were not all answered.
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
