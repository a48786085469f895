"""`vico-eval papers`: the numbers that the papers print, and their audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import completion, options

papers_app = typer.Typer(rich_markup_mode=None)


@papers_app.callback(invoke_without_command=True)
def papers(
    context: typer.Context,
    paper: Annotated[
        str | None,
        typer.Option(help="Paper: vico, internvl-x, tops or avtp. Default: all.", autocompletion=completion.papers),
    ] = None,
    table: Annotated[int | None, typer.Option(min=1, help="Number of a table. Default: all.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the tables as CSV (tidy, and as printed), LaTeX and Markdown.")
    ] = Path("report/published"),
    figure: Annotated[
        bool, typer.Option("--figure", help="Also draw ViCO's Figure 1(b) from the numbers of its Tables 1 and 4.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show the tables that the papers print.

    Numbers appear as printed, and are also written as files. An average that does not follow from the printed cells
    is marked, and a note gives the recomputed value. With --json the numbers go to stdout, one object each, and no
    files are written.

    \b
    Examples:
      vico-eval papers --paper vico --table 3
      vico-eval papers --figure --out report/published
    """
    if context.invoked_subcommand is not None:
        return
    from vico_eval.commands.work.papers import print_numbers, print_papers

    if as_json:
        print_numbers(paper=paper, number=table)
    else:
        print_papers(paper=paper, number=table, out=out, figure=figure)


@papers_app.command()
def audit(as_json: options.Json = False) -> None:
    """List the numbers in the papers that contradict each other.

    Recomputes averages from their cells, and compares numbers that a paper prints in several tables. Exits with 0 if
    exactly the known exceptions are found, and with 1 otherwise.

    \b
    Examples:
      vico-eval papers audit
      vico-eval papers audit > disagreements.txt
    """
    from vico_eval.commands.work.papers import print_audit

    print_audit(as_json=as_json)
