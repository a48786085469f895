"""The options of `vico-eval report`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Blank(str, Enum):
    """What blank answers without token counts are taken for."""

    FAILED = "failed"
    WRONG = "wrong"


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
            "tops-2, avtp-2, tiny, internvl-x) or its name."
        ),
    ] = "vico-3",
    out: Annotated[Path, typer.Option(help="Folder for CSV, LaTeX, Markdown, picture and provenance.")] = Path(
        "report"
    ),
    baseline: Annotated[
        str | None,
        typer.Option(help="Row that counts as 100%, by title or system. Default: the table's first, vanilla."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Set the paper's numbers of the table beneath the measured ones.")
    ] = False,
    published_model: Annotated[
        str | None,
        typer.Option(help="Whose, where the paper's table has several models or budgets: InternVL3.5-8B, 256, ..."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Further columns of the table, what a document costs: operations (of prefill), cache, seconds, "
            "prefill_seconds, decode_seconds, memory, separated by commas. costs.csv has them all."
        ),
    ] = None,
    pareto: Annotated[
        str,
        typer.Option(
            help="Over what the picture of retention is drawn, with its Pareto front: tokens, or one of the costs of "
            "--columns. Over a cost, rows that take more time than the baseline for fewer operations are marked."
        ),
    ] = "tokens",
    latex_columns: Annotated[
        str | None,
        typer.Option(
            help='Columns of the LaTeX table by title, separated by commas, as "DocVQA,Avg.,95% interval,Visual '
            'tokens". Default: all but 95% interval.'
        ),
    ] = None,
    serif: Annotated[bool, typer.Option("--serif", help="Set the pictures' text in type like Times.")] = False,
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
    documents: Annotated[
        bool,
        typer.Option("--documents", help="Also write every document's scores in every run as documents.parquet."),
    ] = False,
    model_index: Annotated[
        bool,
        typer.Option("--model-index", help="Also write model-index.yaml: the rows as results for model cards."),
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW",
            help="Also compare every other row with this one, by title, or all for every pair: paired differences with "
            "intervals and p-values, corrected over the pairs. May be given several times.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Percent of the baseline's score that verdicts say a row retains, or not.")
    ] = 99.0,
    alpha: Annotated[float, typer.Option(help="Level of the tests, after correction for their number.")] = 0.05,
) -> None:
    """Turn finished runs into a table and a picture.

    Scores, relative retention and the ratio of compressed tiles. A run counts only if every document of every task has
    an answer. Runs that other programs started are read too; without token accounts they have no ratios.

    \b
    Examples:
      vico-eval report runs/vanilla runs/vico --table vico-3 --published --html page
      vico-eval report runs/* "InternVL=logs/OpenGVLab__InternVL3_5-8B-HF" --table vico-3 --against all --margin 98
    """
    from vico_eval.commands.arguments import parse_names
    from vico_eval.commands.report import print_report, titled_run
    from vico_eval.report import write_report
    from vico_eval.report.stats.uncertainty import Criterion

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
        columns_of_cost=parse_names(columns, "--columns"),
        pareto=pareto,
        against=against or (),
        criterion=Criterion(margin=margin, alpha=alpha),
        latex_columns=parse_names(latex_columns, "--latex-columns"),
        is_serif=serif,
        has_documents=documents,
        has_model_index=model_index,
    )
    print_report(written)
