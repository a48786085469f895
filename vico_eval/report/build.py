"""Write a report from finished runs: tables as CSV, LaTeX and Markdown, figures, and the provenance of every number."""

import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from vico_eval.errors import OutputError, ReportError
from vico_eval.report.budgets.groups import parted_by_budget
from vico_eval.report.budgets.iso_accuracy import iso_sentences
from vico_eval.report.costs.axis import TOKENS, check_axis, cost_axis
from vico_eval.report.costs.frame import check_asked, cost_columns, document_costs, slow_sentences
from vico_eval.report.endings.counts import COUNTS, ending_notes, endings
from vico_eval.report.exports.documents import document_frame, write_documents
from vico_eval.report.exports.model_card import model_index
from vico_eval.report.figures.draw import Drawing, draw_while, load_drawing, write_compared
from vico_eval.report.files import (
    DOCUMENTS,
    ENDINGS,
    MODEL_INDEX,
    PROVENANCE,
    STRATA_TABLES,
    Report,
    left_by_earlier,
    written_report,
)
from vico_eval.report.frames import Frames, Spent, compute_frames
from vico_eval.report.page.folder import check_page_folder
from vico_eval.report.page.kept import KeptSamples
from vico_eval.report.paired.marks import intervals, significant
from vico_eval.report.paired.pairs import pairs_of
from vico_eval.report.papers.paper_rows import find_model, with_published
from vico_eval.report.provenance import provenance_of, relative_place
from vico_eval.report.read_runs import count_runs, workers_for
from vico_eval.report.scores.benchmarks import TableSpec, chosen, table_spec
from vico_eval.report.scores.counted import CountedRun
from vico_eval.report.staging import staged
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.sentences import comparison_sentences, pair_sentences
from vico_eval.report.stats.side_by_side import measure
from vico_eval.report.stats.times import document_times
from vico_eval.report.stats.uncertainty import Criterion
from vico_eval.report.strata.calibration import calibration_sentences
from vico_eval.report.strata.tables import strata_grids, strata_latex, strata_markdown
from vico_eval.report.tables.csv_text import frame_to_csv
from vico_eval.report.tables.layout import build_table, find_baseline, order_rows
from vico_eval.report.tables.numbers import tidy_numbers
from vico_eval.report.tables.table import Table
from vico_eval.report.tables.writers import to_latex, to_markdown
from vico_eval.runs.schema import RECORD_NAME


def write_report(
    runs: Sequence[tuple[str | None, Path]],
    *,
    table: str | TableSpec,
    out: Path,
    baseline: str | None = None,
    benchmarks: Sequence[str] | None = None,
    only: Mapping[Path, Collection[str]] | None = None,
    note: str | None = None,
    published: str | bool = False,
    html: Path | None = None,
    blank_is_wrong: bool = False,
    columns_of_cost: Sequence[str] = (),
    pareto: str = TOKENS,
    against: Sequence[str] = (),
    criterion: Criterion | None = None,
    latex_columns: Sequence[str] = (),
    is_serif: bool = False,
    has_documents: bool = False,
    has_model_index: bool = False,
) -> Report:
    """Write the report of finished runs to `out`.

    Args:
        runs: for each run, the title of its row (None: from the run's record) and its folder, which is lmms-eval's
            --output_path or VLMEvalKit's --work-dir. Runs with the same title form one row with their mean and spread.
            Large runs are read in two more processes, so a script must call this under `__main__` only.
        table: a suite (`vico-table3`), its table (`vico-3`) or your own specification.
        out: folder for table3.csv, .tex, .md (the suite's `file_stem`), uncertainty.csv, loyalty.csv, endings.csv,
            time.csv (if a run has times), pairs.csv (with `against`), budgets.csv (if a method was run at several
            budgets), costs.csv (if a run has costs), strata.csv, .md and .tex (if documents have categories or rows
            lose some), router.csv (if there are router scores and a row that compresses every tile), the figures
            (retention, budgets, benchmarks, ratios, scores, router; .pdf, .png) and provenance.json; created if
            missing.
        baseline: title or system of the row that counts as 100%; by default the row of the table's first system
            (`vanilla`).
        benchmarks: titles of the table's benchmarks to include; by default all.
        only: tasks to read, by run folder; all tasks for folders not listed.
        note: an additional note below the table.
        published: include the paper's numbers below the measured ones; a string selects the model if the paper's table
            has several.
        html: folder for the report as a web page (`vico_eval.report.page`), which is new, empty or an earlier page's;
            None for no page.
        blank_is_wrong: count blank answers without token counts as they were scored, in runs by lmms-eval's own models;
            otherwise they may be failures and leave their cell without a score.
        latex_columns: titles of the LaTeX table's columns, in this order; by default all but `95% interval`.
        is_serif: use a Times-like typeface in figures.
        has_documents: write documents.parquet, with every document's scores in every run.
        has_model_index: write model-index.yaml, with the rows as results for model cards.
        columns_of_cost: costs to show as columns of the table (`operations`, `seconds`, ...: `ASKED` in
            `vico_eval.report.costs.frame`); costs.csv has all of them.
        pareto: horizontal axis of the retention figure: `tokens`, or one of the same costs.
        against: titles of rows to compare all others with, in addition to the baseline, or `all` for every pair.
        criterion: hypothesis that verdicts test; by default that 99% is retained, at level 0.05.

    An earlier report in `out`, or page in `html`, is replaced only once the new one is complete.

    Raises:
        ConfigError: the suite is unknown, or no paper's table has such a model.
        ReportError: runs are unusable (all are named), can't be compared or have no benchmark of the table.
        OutputError: `out` or `html` can't be written.
    """
    if html is not None:
        check_page_folder(html)
    check_asked(columns_of_cost)
    check_axis(pareto)
    spec = table_spec(table) if isinstance(table, str) else table
    columns = chosen(spec.benchmarks, benchmarks)
    paper = find_model(spec.name, published if isinstance(published, str) else None) if published else None
    with workers_for([path for _, path in runs]) as workers, TemporaryDirectory(prefix="vico-eval-") as kept:
        page = None
        if html is not None:
            page = _Page(html, KeptSamples(Path(kept), [benchmark.title for benchmark in columns]))
        samples = None if page is None else page.samples
        counted = count_runs(runs, columns, only or {}, workers, blank_is_wrong=blank_is_wrong, samples=samples)
        counted = parted_by_budget(counted)
        load_drawing(workers)
        systems = order_rows(_systems(counted), spec.systems)
        base = find_baseline(systems, baseline or spec.systems[0])
        pairs = pairs_of(list(systems), against)
        measured = measure(counted, columns)
        built = build_table(measured, columns, systems, caption=spec.caption, baseline=base)
        systems = {title: systems[title] for title in built.summary.index}
        ended = endings(measured.cells, list(systems), built.columns)
        for sentence in ending_notes(ended):
            built = built.with_note(sentence)
        if paper is not None:
            built = with_published(built, systems, paper)
        if note is not None:
            built = built.with_note(note)
        content = _Content(
            spec=spec,
            table=built,
            measured=measured,
            endings=ended,
            runs=counted,
            systems=systems,
            page=page,
            costs=columns_of_cost,
            pareto=pareto,
            pairs=pairs,
            criterion=criterion or Criterion(),
            latex_columns=latex_columns,
            is_serif=is_serif,
            has_documents=has_documents,
            has_model_index=has_model_index,
        )
        try:
            return _write(content, out, workers)
        except OSError as error:
            raise OutputError(
                f"The report can't be written to {out}: {error}. The folder is unchanged; make room, or choose another."
            ) from error


class _Page(NamedTuple):
    """The web page to write."""

    folder: Path
    samples: KeptSamples


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """Everything a report is written from."""

    spec: TableSpec
    table: Table
    measured: Measurements
    endings: pd.DataFrame
    runs: Sequence[CountedRun]
    systems: Mapping[str, str]
    """Each row's system by row title, in the order of the rows."""

    page: _Page | None
    costs: Sequence[str]
    """Names of the costs to show as columns of the table."""

    pareto: str
    """Horizontal axis of the retention figure."""

    pairs: Sequence[tuple[str, str]]
    """Pairs of rows to compare."""

    criterion: Criterion

    latex_columns: Sequence[str]
    """Titles of LaTeX columns; if empty, all but the interval."""

    is_serif: bool
    """Use a serif typeface in figures."""

    has_documents: bool
    has_model_index: bool

    @property
    def previews(self) -> dict[int, Path]:
        """Folders of the runs' image thumbnails, by run number."""
        kept = {number: (run.folder, run.record.previews) for number, run in enumerate(self.runs)}
        return {number: folder / previews for number, (folder, previews) in kept.items() if previews is not None}


def _write(content: _Content, out: Path, workers: Executor | None) -> Report:
    cells = content.measured.cells
    times = document_times(content.runs, list(content.systems), content.table.columns, content.table.baseline)
    costs = document_costs(cells, content.table.summary, times, content.table.baseline)
    drawing = Drawing(content.is_serif, cost_axis(costs, content.pareto))
    compute = partial(
        compute_frames,
        content.table,
        content.measured,
        content.systems,
        Spent(times, costs),
        content.pairs,
        content.criterion,
        weights={run.row: run.record.checkpoint.sha256 for run in content.runs},
    )
    with staged(out) as files:
        pictures, frames = draw_while(content.table, cells, files.place, compute, workers, drawing)
        table = content.table if pictures.note is None else content.table.with_note(pictures.note)
        compared = comparison_sentences(frames.uncertainty, frames.loyalty, content.criterion)
        compared += iso_sentences(frames.budgets) + calibration_sentences(frames.router, table.baseline)
        # Times vary between runs, so they appear only on request; otherwise the table is reproducible.
        compared += slow_sentences(frames.costs, table.baseline) if "seconds" in content.costs else ()
        table = replace(
            table,
            comparison=compared,
            pairs=() if frames.pairs is None else pair_sentences(frames.pairs, content.criterion.alpha),
            best=frames.best,
            costs=cost_columns(frames.costs, content.costs),
            intervals=intervals(frames.uncertainty),
            significant=significant(frames.uncertainty, content.criterion.alpha),
        )
        with_intervals = write_compared(
            table, frames.uncertainty, frames.router, files.place, workers, is_serif=content.is_serif
        )
        drawn = (*pictures.paths, *with_intervals)
        numbers = _numbers(content, table, out)
        texts = _texts(content, table, frames, numbers, out)
        binary = [DOCUMENTS] if content.has_documents else []
        report = written_report(table, out, content.spec.file_stem, [*texts, *binary, *(path.name for path in drawn)])
        report = replace(report, removed=left_by_earlier(report))
        for name, text in texts.items():
            (files.place / name).write_text(text, encoding="utf-8")
        if content.has_documents:
            every = document_frame(content.measured, content.runs, content.systems, table.columns)
            write_documents(every, files.place / DOCUMENTS)
        if content.page is not None:
            from vico_eval.report.page.site import PageContent, write_page

            shown = PageContent(
                table=table,
                measured=content.measured,
                read=content.page.samples.read,
                previews=content.previews,
                endings=content.endings,
                numbers=numbers,
                uncertainty=frames.uncertainty,
                loyalty=frames.loyalty,
                runs=content.runs,
                times=frames.times,
                costs=frames.costs,
            )
            report = replace(report, html=write_page(content.page.folder, shown))
        files.move_in()
        for path in report.removed:
            path.unlink()
    return report


def _texts(content: _Content, table: Table, frames: Frames, numbers: pd.DataFrame, out: Path) -> dict[str, str]:
    """The content of the report's text files, by name."""
    stem, label = content.spec.file_stem, f"tab:{content.spec.name}"
    provenance = provenance_of(table, content.measured, content.runs, out)
    texts = {
        f"{stem}.csv": frame_to_csv(numbers),
        f"{stem}.tex": to_latex(table, label, content.latex_columns),
        f"{stem}.md": to_markdown(table),
        **frames.texts(),
        ENDINGS: frame_to_csv(content.endings.astype(dict.fromkeys(COUNTS, "Int64"))),
        PROVENANCE: json.dumps(provenance, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    if frames.strata is not None:
        grids = strata_grids(frames.strata, list(content.systems), table.columns, table.baseline)
        written = (strata_markdown(grids), strata_latex(grids, f"{label}-strata"))
        texts |= dict(zip(STRATA_TABLES, written, strict=True))
    if content.has_model_index:
        texts[MODEL_INDEX] = model_index(table, content.measured, content.runs)
    return texts


def _numbers(content: _Content, table: Table, out: Path) -> pd.DataFrame:
    places = [relative_place(run.folder, out) for run in content.runs]
    origins = [run.record.made_from or RECORD_NAME for run in content.runs]
    records = [f"{place}/{origin}" for place, origin in zip(places, origins, strict=True)]
    return tidy_numbers(table, content.measured, content.systems, places, records)


def _systems(runs: Sequence[CountedRun]) -> dict[str, str]:
    systems: dict[str, str] = {}
    for run in runs:
        if systems.setdefault(run.row, run.record.system) != run.record.system:
            raise ReportError(
                f"The row `{run.row}` has runs of two systems, {systems[run.row]} and {run.record.system}. Give one of "
                "them another title."
            )
    return systems
