"""`vico-eval report`: of runs, and its commands for the papers' own tables."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class Blank(str, Enum):
    """What blank answers without token counts are taken for."""

    FAILED = "failed"
    WRONG = "wrong"


class _RunsOrCommand(TyperGroup):
    """A command that takes folders, beside commands of its own: the first argument decides.

    `report published` is the command; a folder of that name is `report ./published`.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command = self.commands.get(args[0]) if args else None
        if command is None:
            return super().make_context(info_name, args, parent, **extra)
        # Not the group's own context: it would read the command's name as a folder.
        return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


report_app = typer.Typer(
    cls=_RunsOrCommand,
    invoke_without_command=True,
    subcommand_metavar="| COMMAND [ARGS]...",
    rich_markup_mode=None,
    # As for any command, options may follow the folders.
    context_settings={"allow_interspersed_args": True},
)


@report_app.callback()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[TITLE=]RUN",
            help="Run folders: what lmms-eval got as --output_path or VLMEvalKit as --work-dir. TITLE names the row; "
            "runs of one title are one row, the mean over them.",
        ),
    ],
    table: Annotated[
        str,
        typer.Option(
            help="Which benchmarks become the columns: a suite's table (vico-1, -2, -3, -5, -6, internvl-x-1, -2, "
            "tiny, internvl-x) or its name."
        ),
    ] = "vico-3",
    out: Annotated[Path, typer.Option(help="Folder for CSV, LaTeX, Markdown, picture and provenance.")] = Path(
        "report"
    ),
    baseline: Annotated[
        str | None, typer.Option(help="Row that counts as 100%, by title or system. Default: vanilla.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Set the paper's numbers of the table beneath the measured ones.")
    ] = False,
    published_model: Annotated[
        str | None, typer.Option(help="Whose, where the paper's table has several models: InternVL3.5-8B, ...")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write the report as a page with its samples into this folder, for any browser."),
    ] = None,
    blank: Annotated[
        Blank,
        typer.Option(
            help="What blank answers are in runs of lmms-eval's own models without token counts: failed leaves their "
            "cell without a score, wrong takes them as answers, scored as lmms-eval did. Runs of this package say it."
        ),
    ] = Blank.FAILED,
) -> None:
    """Turn finished runs into a table and a picture.

    Scores, relative retention and the ratio of compressed tiles. A run counts only if every document of every task has
    an answer. Runs that other programs started are read too; without token accounts they have no ratios.

    \b
    Examples:
      vico-eval report runs/vanilla runs/vico --table vico-3 --published --html page
      vico-eval report runs/* "InternVL=logs/OpenGVLab__InternVL3_5-8B-HF" --table vico-3 --out results/measured/8b
    """
    from vico_eval.commands.report import print_report, titled_run
    from vico_eval.report import write_report

    named = [titled_run(run) for run in runs]
    beside = published_model or published
    written = write_report(
        named,
        table=table,
        out=out,
        baseline=baseline,
        published=beside,
        html=html,
        blank_is_wrong=blank is Blank.WRONG,
    )
    print_report(written)


@report_app.command()
def published(
    paper: Annotated[str | None, typer.Option(help="vico or internvl-x. Default: both.")] = None,
    table: Annotated[int | None, typer.Option(min=1, help="Its number. Default: all.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for CSV (tidy, and as laid out), LaTeX and Markdown.")] = Path(
        "report/published"
    ),
    figure: Annotated[
        bool, typer.Option("--figure", help="Also draw ViCO's Figure 1(b) from the numbers of its Tables 1 and 4.")
    ] = False,
) -> None:
    """Print the papers' own tables, and write their files.

    Everything is as printed. Averages whose cells make another are marked, with a note of what they make.

    \b
    Examples:
      vico-eval report published --paper vico --table 3
      vico-eval report published --figure --out report/published
    """
    from vico_eval.commands.report import make_published

    make_published(paper=paper, number=table, out=out, figure=figure)


@report_app.command()
def audit() -> None:
    """List where the papers' printed numbers do not agree.

    Averages with their cells, and numbers that several tables of a paper print. Ends with 0 if it finds exactly the
    known exceptions, with 1 otherwise.

    \b
    Examples:
      vico-eval report audit
      vico-eval report audit > disagreements.txt
    """
    from vico_eval.commands.report import audit as print_audit

    print_audit()
