"""From finished runs to a table's files: CSV, LaTeX, Markdown, the picture and where every number came from."""

import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from vico_eval.errors import OutputError, ReportError
from vico_eval.report.budgets.groups import parted_by_budget
from vico_eval.report.budgets.iso_accuracy import iso_accuracy, iso_sentences
from vico_eval.report.costs.frame import check_asked, cost_columns, document_costs, slow_sentences
from vico_eval.report.endings.counts import COUNTS, ending_notes, endings
from vico_eval.report.figures.draw import PICTURES, draw_while, load_drawing, write_compared
from vico_eval.report.page.folder import check_page_folder
from vico_eval.report.page.kept import KeptSamples
from vico_eval.report.paired.best import best_of
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.paired.marks import intervals, significant
from vico_eval.report.paired.pairs import compare_pairs, pairs_of
from vico_eval.report.papers.paper_rows import find_model, with_published
from vico_eval.report.provenance import provenance_of, relative_place
from vico_eval.report.read_runs import count_runs, workers_for
from vico_eval.report.scores.benchmarks import Benchmark, TableSpec, table_spec
from vico_eval.report.scores.counted import CountedRun
from vico_eval.report.staging import staged
from vico_eval.report.stats.loyalty import loyalty
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.sentences import comparison_sentences, pair_sentences
from vico_eval.report.stats.side_by_side import measure
from vico_eval.report.stats.times import document_times
from vico_eval.report.stats.uncertainty import Criterion, compare_with_baseline
from vico_eval.report.tables.csv_text import frame_to_csv
from vico_eval.report.tables.layout import build_table, find_baseline, order_rows
from vico_eval.report.tables.numbers import tidy_numbers
from vico_eval.report.tables.table import Table
from vico_eval.report.tables.writers import to_latex, to_markdown
from vico_eval.runs.schema import RECORD_NAME

PROVENANCE = "provenance.json"
"""By this file of its a report's folder is known."""

ENDINGS = "endings.csv"

TIMES = "time.csv"
"""Written only if a run has times."""

BUDGETS = "budgets.csv"
"""Written only if a method was run at several budgets."""

COSTS = "costs.csv"
"""Written only if a run says its operations or has times."""

PAIRS = "pairs.csv"
"""Written only if rows were to be compared with each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A written report."""

    table: Table
    csv: Path
    latex: Path
    markdown: Path
    uncertainty: Path
    loyalty: Path
    endings: Path
    provenance: Path
    figures: tuple[Path, ...]
    """PDF and PNG of each. Without that of retention a note of the table says why."""

    times: Path | None = None
    """What the rows' answers took; None if no run has times."""

    budgets: Path | None = None
    """Where each method falls below 99% and 95%; None if none was run at several budgets."""

    costs: Path | None = None
    """What the rows' documents cost; None if no run says it."""

    pairs: Path | None = None
    """Rows against rows, where that was asked for."""

    html: Path | None = None
    """index.html of the page, where one was asked for."""

    removed: tuple[Path, ...] = ()
    """An earlier report's pictures, times and pairs, of which this one has none."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file written."""
        some = tuple(path for path in (self.times, self.pairs, self.budgets, self.costs) if path is not None)
        page = () if self.html is None else (self.html,)
        tables = (self.csv, self.latex, self.markdown, self.uncertainty, self.loyalty, self.endings, *some)
        return (*tables, *self.figures, self.provenance, *page)


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
    against: Sequence[str] = (),
    criterion: Criterion | None = None,
    latex_columns: Sequence[str] = (),
    is_serif: bool = False,
) -> Report:
    """Reads finished runs and writes their table into `out`.

    Args:
        runs: each row's title (None: the run record's) and a run's folder, lmms-eval's --output_path or VLMEvalKit's
            --work-dir, whoever started it. Runs of the same title make one row: its mean, with the spread over them.
            Where they are large two more processes are started, so a script must call this under `__main__` only.
        table: a suite (`vico-table3`), its table (`vico-3`) or one of your own.
        out: where table3.csv, .tex, .md (the suite's `file_stem`), uncertainty.csv, loyalty.csv, endings.csv,
            time.csv (if a run has times), pairs.csv (with `against`), budgets.csv (if a method was run at several
            budgets), costs.csv (if a run says them), the pictures (retention, budgets, benchmarks, ratios, scores;
            .pdf, .png) and provenance.json go; made if missing.
        baseline: title or system of the row that counts as 100%; by default the row of the table's first
            system (`vanilla`).
        benchmarks: titles of the table's benchmarks to keep; by default all of them.
        only: tasks to read of a run, by its folder; all where it isn't named.
        note: what a reader has to know besides what the runs say.
        published: whether the paper's numbers of a table stand beneath the measured ones; of which model, where the
            paper's table has several.
        html: folder of the report as a page (`vico_eval.report.page`), new, empty or an earlier page's; None for none.
        blank_is_wrong: whether blank answers without token counts, of runs that lmms-eval's own models made, count as
            they were scored; otherwise they may be failures and leave their cell without a score.
        latex_columns: titles of the columns of the LaTeX table, in this order; by default all but `95% interval`.
        is_serif: whether the pictures' type is like Times.
        columns_of_cost: which of `operations`, `cache` and `seconds` the table has columns of; costs.csv has them all.
        against: titles of rows that all others are compared with besides the baseline, or `all` for every pair.
        criterion: what verdicts test, by default whether 99% is retained, at 0.05.

    An earlier report in `out`, or page in `html`, is replaced once all of the new one is there, and otherwise stays.

    Raises:
        ConfigError: there is no such suite, or no paper's table with such a model.
        ReportError: runs that don't count (all of them are named), can't be compared or have no benchmark of the table.
        OutputError: `out` or `html` can't be written.
    """
    if html is not None:
        check_page_folder(html)
    check_asked(columns_of_cost)
    spec = table_spec(table) if isinstance(table, str) else table
    columns = _choose(spec.benchmarks, benchmarks)
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
            pairs=pairs,
            criterion=criterion or Criterion(),
            latex_columns=latex_columns,
            is_serif=is_serif,
        )
        try:
            return _write(content, out, workers)
        except OSError as error:
            raise OutputError(
                f"The report can't be written to {out}: {error}. What was there is as it was; make room, or choose "
                "another folder."
            ) from error


class _Page(NamedTuple):
    """A page that is asked for."""

    folder: Path
    samples: KeptSamples


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """What a report is written from."""

    spec: TableSpec
    table: Table
    measured: Measurements
    endings: pd.DataFrame
    runs: Sequence[CountedRun]
    systems: Mapping[str, str]
    """Each row's system by row title, in the order of the rows."""

    page: _Page | None
    costs: Sequence[str]
    """Names of the columns of cost that the table is to have."""

    pairs: Sequence[tuple[str, str]]
    """Rows to be compared with each other."""

    criterion: Criterion

    latex_columns: Sequence[str]
    """Titles; all but the interval where none are given."""

    is_serif: bool
    """Of the pictures' type."""

    @property
    def previews(self) -> dict[int, Path]:
        """Folders of the pictures that runs kept, by the runs' numbers."""
        kept = {number: (run.folder, run.record.previews) for number, run in enumerate(self.runs)}
        return {number: folder / previews for number, (folder, previews) in kept.items() if previews is not None}


class _Frames(NamedTuple):
    """What a report computes besides its table."""

    numbers: pd.DataFrame
    uncertainty: pd.DataFrame
    loyalty: pd.DataFrame
    times: pd.DataFrame | None
    budgets: pd.DataFrame | None
    costs: pd.DataFrame | None
    pairs: pd.DataFrame
    best: Mapping[str, frozenset[str]]
    """Of the table."""


def _write(content: _Content, out: Path, workers: Executor | None) -> Report:
    with staged(out) as files:
        pictures, frames = draw_while(
            content.table,
            content.measured.cells,
            files.place,
            lambda: _compute(content, out),
            workers,
            is_serif=content.is_serif,
        )
        table = content.table if pictures.note is None else content.table.with_note(pictures.note)
        compared = comparison_sentences(frames.uncertainty, frames.loyalty, content.criterion)
        compared += iso_sentences(frames.budgets)
        # Times differ from run to run; a table has them where they are asked for, and is the same otherwise.
        compared += slow_sentences(frames.costs, table.baseline) if "seconds" in content.costs else ()
        table = replace(
            table,
            comparison=compared,
            pairs=pair_sentences(frames.pairs, content.criterion.alpha),
            best=frames.best,
            costs=cost_columns(frames.costs, content.costs),
            intervals=intervals(frames.uncertainty),
            significant=significant(frames.uncertainty, content.criterion.alpha),
        )
        with_intervals = write_compared(table, frames.uncertainty, files.place, is_serif=content.is_serif)
        drawn = (*pictures.paths, *with_intervals)
        stem = content.spec.file_stem
        report = Report(
            table=table,
            csv=out / f"{stem}.csv",
            latex=out / f"{stem}.tex",
            markdown=out / f"{stem}.md",
            uncertainty=out / "uncertainty.csv",
            loyalty=out / "loyalty.csv",
            endings=out / ENDINGS,
            times=None if frames.times is None else out / TIMES,
            budgets=None if frames.budgets is None else out / BUDGETS,
            costs=None if frames.costs is None else out / COSTS,
            pairs=out / PAIRS if content.pairs else None,
            provenance=out / PROVENANCE,
            figures=tuple(out / path.name for path in drawn),
        )
        report = replace(report, removed=_left_by_earlier(report))
        for path, text in _texts(report, content, frames).items():
            (files.place / path.name).write_text(text, encoding="utf-8")
        if content.page is not None:
            from vico_eval.report.page.site import PageContent, write_page

            shown = PageContent(
                table=table,
                measured=content.measured,
                read=content.page.samples.read,
                previews=content.previews,
                endings=content.endings,
                numbers=frames.numbers,
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


def _compute(content: _Content, out: Path) -> _Frames:
    table, measured = content.table, content.measured
    places = [relative_place(run.folder, out) for run in content.runs]
    origins = [run.record.made_from or RECORD_NAME for run in content.runs]
    records = [f"{place}/{origin}" for place, origin in zip(places, origins, strict=True)]
    rows = list(content.systems)
    times = document_times(content.runs, rows, table.columns, table.baseline)
    draws = Draws(rows, columns_of(measured, rows, table.columns))
    return _Frames(
        numbers=tidy_numbers(table, measured, content.systems, places, records),
        uncertainty=compare_with_baseline(draws, table.baseline, content.criterion),
        loyalty=loyalty(measured, rows, table.columns, table.baseline),
        times=times,
        budgets=iso_accuracy(table, draws),
        costs=document_costs(measured.cells, table.summary, times, table.baseline),
        pairs=compare_pairs(draws, content.pairs),
        best=best_of(table, draws, content.criterion.alpha),
    )


def _texts(report: Report, content: _Content, frames: _Frames) -> dict[Path, str]:
    """The report's files of text, by path."""
    table, out = report.table, report.provenance.parent
    provenance = provenance_of(table, content.measured, content.runs, out)
    some = (
        *((report.times, frames.times), (report.pairs, frames.pairs)),
        *((report.budgets, frames.budgets), (report.costs, frames.costs)),
    )
    more = {path: frame_to_csv(_counted(frame)) for path, frame in some if path is not None and frame is not None}
    return more | {
        report.csv: frame_to_csv(frames.numbers),
        report.uncertainty: frame_to_csv(_counted(frames.uncertainty)),
        report.loyalty: frame_to_csv(_counted(frames.loyalty)),
        report.endings: frame_to_csv(content.endings.astype(dict.fromkeys(COUNTS, "Int64"))),
        report.latex: to_latex(table, f"tab:{content.spec.name}", content.latex_columns),
        report.markdown: to_markdown(table),
        report.provenance: json.dumps(provenance, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """With counts as whole numbers."""
    return frame.astype({name: "Int64" for name in ("documents", "pictures") if name in frame})


def _left_by_earlier(report: Report) -> tuple[Path, ...]:
    """An earlier report's pictures, times and pairs that would seem to be this one's, which has no such file."""
    if not report.provenance.is_file():
        return ()
    places = [report.provenance.with_name(name) for name in (*PICTURES, TIMES, PAIRS, BUDGETS, COSTS)]
    return tuple(place for place in places if place not in report.paths and place.is_file())


def _choose(benchmarks: Sequence[Benchmark], titles: Sequence[str] | None) -> list[Benchmark]:
    if titles is None:
        return list(benchmarks)
    known = {benchmark.title: benchmark for benchmark in benchmarks}
    if unknown := [title for title in titles if title not in known]:
        raise ReportError(f"The table has no benchmark {', '.join(unknown)}; it has {', '.join(known)}.")
    return [benchmark for benchmark in benchmarks if benchmark.title in titles]


def _systems(runs: Sequence[CountedRun]) -> dict[str, str]:
    systems: dict[str, str] = {}
    for run in runs:
        if systems.setdefault(run.row, run.record.system) != run.record.system:
            raise ReportError(
                f"The row `{run.row}` got runs of two systems, {systems[run.row]} and {run.record.system}. Give one of "
                "them another title."
            )
    return systems
