"""`vico-eval report`: finished runs become a table."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import completion, options


class Blank(str, Enum):
    """How blank answers without token counts are counted."""

    FAILED = "failed"
    WRONG = "wrong"


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[TITLE=]RUN",
            help="Run folders (lmms-eval's --output_path, VLMEvalKit's --work-dir). TITLE names the row; runs with the "
            "same title are averaged in one row.",
        ),
    ],
    table: Annotated[
        str,
        typer.Option(
            help="Table whose benchmarks become the columns: vico-1, -2, -3, -5, -6, internvl-x-1, -2, tops-2, avtp-2, "
            "tiny, internvl-x, or a suite's name.",
            autocompletion=completion.suites,
        ),
    ] = "vico-3",
    out: Annotated[
        Path, typer.Option(help="Folder for the table as CSV, LaTeX and Markdown, its figures and its provenance.")
    ] = Path("report"),
    baseline: Annotated[
        str | None,
        typer.Option(help="Row that counts as 100%, by title or system. Default: the table's first row, vanilla."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Print the paper's numbers beneath the measured ones.")
    ] = False,
    published_model: Annotated[
        str | None,
        typer.Option(
            help="Model or budget to compare with, where the paper's table has several: InternVL3.5-8B, 256, ..."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Costs per document to add as columns, separated by commas: operations (of prefill), cache, seconds, "
            "prefill_seconds, decode_seconds, memory. costs.csv always lists all of them."
        ),
    ] = None,
    pareto: Annotated[
        str,
        typer.Option(
            help="Horizontal axis of the retention figure and its Pareto front: tokens, or a cost named in --columns. "
            "On a cost axis, rows that are slower than the baseline despite fewer operations are marked."
        ),
    ] = "tokens",
    latex_columns: Annotated[
        str | None,
        typer.Option(
            help="Titles of the LaTeX table's columns, separated by commas, as in \"DocVQA,Avg.,95% interval,Visual "
            'tokens". Default: all but 95% interval.'
        ),
    ] = None,
    serif: Annotated[bool, typer.Option("--serif", help="Set the text of figures in a serif font like Times.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write the report as an HTML page with its samples to this folder."),
    ] = None,
    blank: Annotated[
        Blank,
        typer.Option(
            help="How to count blank answers in runs of lmms-eval's own models, which record no token counts: failed "
            "leaves the cell without a score, wrong keeps lmms-eval's score. Runs of this package record failures."
        ),
    ] = Blank.FAILED,
    documents: Annotated[
        bool,
        typer.Option("--documents", help="Also write the scores of every document in every run to documents.parquet."),
    ] = False,
    model_index: Annotated[
        bool,
        typer.Option("--model-index", help="Also write model-index.yaml, the rows as results for model cards."),
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW",
            help="Also compare all other rows with this one (a title, or all for every pair): paired differences with "
            "intervals, and p-values corrected for the number of pairs. Can be repeated.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Retention in percent of the baseline's score that verdicts test for.")
    ] = 99.0,
    alpha: Annotated[
        float, typer.Option(help="Significance level of the tests, after correction for their number.")
    ] = 0.05,
    as_json: options.Json = False,
) -> None:
    """Turn finished runs into a table with intervals.

    The table has scores, relative retention and the ratio of compressed tiles, and ends with a confidence interval and
    a verdict per row. A run counts only if every document of every task has an answer. Runs of other programs can be
    included; they have no token accounts, and so no ratios.

    \b
    Examples:
      vico-eval report runs/vanilla runs/vico --table vico-3 --published --html page
      vico-eval report runs/* "InternVL=logs/OpenGVLab__InternVL3_5-8B-HF" --table vico-3 --against all --margin 98
    """
    from vico_eval.commands.arguments import parse_names
    from vico_eval.commands.work.report import print_report, print_summary, titled_run
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
    if as_json:
        print_summary(written)
    else:
        print_report(written)
