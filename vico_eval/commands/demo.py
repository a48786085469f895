"""`vico-eval demo`: a whole table on the built-in benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import options
from vico_eval.commands.arguments import parse_names


def demo(
    table: Annotated[
        str, typer.Option(help="Table to fill: tiny (ViCO's Table 3) or internvl-x (InternVL-X's parts).")
    ] = "tiny",
    limit: Annotated[
        int | None, options.limit("Number of documents of each task, from its first on. Default: all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for table and figures. Default: results/measured/<table>, <table>-all with --rows all, "
            "or a folder under runs/ for a partial table."
        ),
    ] = None,
    rows: Annotated[
        str | None,
        options.rows(
            "Systems to run, separated by commas, or all, which adds the field's baselines. Default: the rows of the "
            "paper's table. The first row, which counts as 100%, always runs."
        ),
    ] = None,
    seeds: Annotated[int, options.seeds()] = 1,
    jobs: Annotated[int | None, options.jobs("Number of processes at once. Default: one per core, at most 4.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run complete rows again.")] = False,
    no_shared_pass: options.SeparateRows = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write the table as an HTML page with its samples to this folder.")
    ] = None,
) -> None:
    """Fill a table on the built-in benchmark, on a CPU.

    Needs no network and no GPU. The table is ViCO's Table 3, or InternVL-X's with --table internvl-x. Every row
    runs through lmms-eval on small models that were really trained. Repeating a stopped command keeps the complete
    rows.

    \b
    Examples:
      vico-eval demo --rows all
      vico-eval demo --limit 20 --rows vico,all_compress
    """
    from vico_eval.commands.work.demo import run_demo

    run_demo(
        table=table,
        limit=limit,
        out=out,
        rows=parse_names(rows, "--rows"),
        num_seeds=seeds,
        jobs=jobs,
        fresh=fresh,
        shared_pass=not no_shared_pass,
        html=html,
    )
