"""The options of `vico-eval papers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

papers_app = typer.Typer(rich_markup_mode=None)


@papers_app.callback(invoke_without_command=True)
def papers(
    context: typer.Context,
    paper: Annotated[str | None, typer.Option(help="vico, internvl-x, tops or avtp. Default: all.")] = None,
    table: Annotated[int | None, typer.Option(min=1, help="Its number. Default: all.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for CSV (tidy, and as laid out), LaTeX and Markdown.")] = Path(
        "report/published"
    ),
    figure: Annotated[
        bool, typer.Option("--figure", help="Also draw ViCO's Figure 1(b) from the numbers of its Tables 1 and 4.")
    ] = False,
) -> None:
    """Print the papers' own tables, and write their files.

    Numbers are as printed. An average that the printed cells do not give is marked, with the recomputed one in a note.

    \b
    Examples:
      vico-eval papers --paper vico --table 3
      vico-eval papers --figure --out report/published
    """
    if context.invoked_subcommand is None:
        from vico_eval.commands.papers import print_papers

        print_papers(paper=paper, number=table, out=out, figure=figure)


@papers_app.command()
def audit() -> None:
    """List where the papers' printed numbers do not agree.

    Compares averages with their cells, and numbers that several tables of a paper print. Ends with 0 if it finds
    exactly the known exceptions, with 1 otherwise.

    \b
    Examples:
      vico-eval papers audit
      vico-eval papers audit > disagreements.txt
    """
    from vico_eval.commands.papers import print_audit

    print_audit()
