"""From finished runs to a table's files: CSV, LaTeX, Markdown, the picture and where every number came from."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vico_eval.errors import OutputError, ReportError
from vico_eval.report.benchmarks import Benchmark, TableSpec, table_spec
from vico_eval.report.comparison import comparison_sentences
from vico_eval.report.layout import Table, build_table, find_baseline, order_rows
from vico_eval.report.loyalty import loyalty
from vico_eval.report.measurements import Measurements, measure
from vico_eval.report.page.folder import check_page_folder
from vico_eval.report.records import RECORD_NAME
from vico_eval.report.runs import Run, read_run
from vico_eval.report.tidy import tidy_numbers
from vico_eval.report.uncertainty import compare_with_baseline
from vico_eval.report.vlmevalkit import read_any_run
from vico_eval.report.writers import to_latex, to_markdown


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A written report."""

    table: Table
    csv: Path
    latex: Path
    markdown: Path
    uncertainty: Path
    loyalty: Path
    provenance: Path
    figures: tuple[Path, ...]
    """PDF and PNG of each. Without that of retention a note of the table says why."""

    html: Path | None = None
    """index.html of the page, where one was asked for."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file written."""
        page = () if self.html is None else (self.html,)
        files = (self.csv, self.latex, self.markdown, self.uncertainty, self.loyalty, *self.figures, self.provenance)
        return files + page


def write_report(
    runs: Sequence[tuple[str | None, Path]],
    *,
    table: str,
    out: Path,
    baseline: str | None = None,
    benchmarks: Sequence[str] | None = None,
    only: Mapping[Path, Collection[str]] | None = None,
    note: str | None = None,
    html: Path | None = None,
) -> Report:
    """Reads finished runs and writes their table into `out`.

    Args:
        runs: each row's title (None: the run record's) and a run's folder, lmms-eval's --output_path or VLMEvalKit's
            --work-dir, whoever started it. Runs of the same title make one row: its mean, with the spread over them.
        table: a suite (`vico-table3`) or its table (`vico-3`).
        out: where table3.csv, .tex, .md (the suite's `file_stem`), uncertainty.csv, loyalty.csv, the pictures
            (retention, benchmarks, ratios, scores; .pdf, .png) and provenance.json go; made if missing.
        baseline: title or system of the row that counts as 100%; by default the row of the system `vanilla`.
        benchmarks: titles of the table's benchmarks to keep; by default all of them.
        only: tasks to read of a run of lmms-eval, by its folder; all where it isn't named.
        note: what a reader has to know besides what the runs say.
        html: folder of the report as a page (`vico_eval.report.page`), new, empty or an earlier page's; None for none.

    Raises:
        ConfigError: there is no such suite.
        ReportError: runs that don't count (all of them are named), can't be compared or have no benchmark of the table.
        OutputError: `out` or `html` can't be written.
    """
    if html is not None:
        check_page_folder(html)
    spec = table_spec(table)
    columns = _choose(spec.benchmarks, benchmarks)
    named = _read_runs(runs, only or {})
    systems = _systems(named)
    base = find_baseline(systems, baseline)
    measured = measure(named, columns)
    built = build_table(measured, columns, systems, caption=spec.caption, baseline=base)
    if note is not None:
        built = built.with_note(note)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(built, measured, named, systems, out, spec, html)
    except OSError as error:
        raise OutputError(f"The report can't be written to {out}: {error}. Choose another folder.") from error


def _write(
    table: Table,
    measured: Measurements,
    named: Sequence[tuple[str, Run]],
    systems: Mapping[str, str],
    out: Path,
    spec: TableSpec,
    html: Path | None,
) -> Report:
    # Only here: matplotlib takes half a second to load, and what reads tables draws nothing.
    from vico_eval.report.bar_figures import draw_bars
    from vico_eval.report.figures import draw_retention, write_figure
    from vico_eval.report.page.site import write_page
    from vico_eval.report.score_figure import draw_scores

    figures: tuple[Path, ...] = ()
    try:
        figures = write_figure(draw_retention(table), out)
    except ReportError as error:
        table = table.with_note(f"No picture: {error}")
    drawn = draw_bars(table) | {"scores": draw_scores(table, measured)}
    for stem, figure in drawn.items():
        if figure is not None:
            figures += write_figure(figure, out, stem)
    rows = order_rows(systems)
    uncertainty = compare_with_baseline(measured, rows, table.columns, table.baseline)
    agreement = loyalty(measured, rows, table.columns, table.baseline)
    table = replace(table, comparison=comparison_sentences(uncertainty, agreement))
    report = Report(
        table=table,
        csv=out / f"{spec.file_stem}.csv",
        latex=out / f"{spec.file_stem}.tex",
        markdown=out / f"{spec.file_stem}.md",
        uncertainty=out / "uncertainty.csv",
        loyalty=out / "loyalty.csv",
        provenance=out / "provenance.json",
        figures=figures,
    )
    places = [_relative(run.folder, out) for _, run in named]
    records = [f"{place}/{run.record.made_from or RECORD_NAME}" for place, (_, run) in zip(places, named, strict=True)]
    tidy = tidy_numbers(table, measured, systems, places, records)
    for frame, path in ((tidy, report.csv), (uncertainty, report.uncertainty), (agreement, report.loyalty)):
        frame.to_csv(path, index=False, lineterminator="\n")
    report.latex.write_text(to_latex(table, label=f"tab:{spec.name}"), encoding="utf-8")
    report.markdown.write_text(to_markdown(table), encoding="utf-8")
    provenance = json.dumps(_provenance(table, measured, named, out), indent=2, ensure_ascii=False, allow_nan=False)
    report.provenance.write_text(provenance + "\n", encoding="utf-8")
    if html is None:
        return report
    page = write_page(
        html,
        table=table,
        measured=measured,
        runs=[run for _, run in named],
        numbers=tidy,
        uncertainty=uncertainty,
        loyalty=agreement,
    )
    return replace(report, html=page)


def _choose(benchmarks: Sequence[Benchmark], titles: Sequence[str] | None) -> list[Benchmark]:
    if titles is None:
        return list(benchmarks)
    known = {benchmark.title: benchmark for benchmark in benchmarks}
    if unknown := [title for title in titles if title not in known]:
        raise ReportError(f"The table has no benchmark {', '.join(unknown)}; it has {', '.join(known)}.")
    return [benchmark for benchmark in benchmarks if benchmark.title in titles]


def _read_runs(runs: Sequence[tuple[str | None, Path]], only: Mapping[Path, Collection[str]]) -> list[tuple[str, Run]]:
    if not runs:
        raise ReportError("A report needs at least one run folder.")
    resolved = [path.resolve() for _, path in runs]
    if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
        raise ReportError(f"The same run was given twice: {', '.join(twice)}.")
    named, problems = [], []
    for title, path in runs:
        try:
            run = read_run(path, only[path]) if path in only else read_any_run(path)
        except ReportError as error:
            problems.append(str(error))
        else:
            named.append((" ".join((title or run.record.title).split()), run))
    if problems:
        raise ReportError("\n".join(problems))
    return named


def _systems(named: Sequence[tuple[str, Run]]) -> dict[str, str]:
    systems: dict[str, str] = {}
    for title, run in named:
        if systems.setdefault(title, run.record.system) != run.record.system:
            raise ReportError(
                f"The row `{title}` got runs of two systems, {systems[title]} and {run.record.system}. Give one of "
                "them another title."
            )
    return systems


def _provenance(table: Table, measured: Measurements, named: Sequence[tuple[str, Run]], out: Path) -> dict[str, Any]:
    """Every cell and the runs behind it, and every run with its record. Paths are relative to the report's folder."""
    return {
        "baseline": table.baseline,
        "cells": [
            {
                "row": cell["row"],
                "benchmark": cell["benchmark"],
                "run": cell["run"],
                "score": None if pd.isna(cell["score"]) else cell["score"],
                "failed": cell["failed"],
                "source": cell["source"],
                "documents": cell["documents"],
                "tiles": _count(cell["tiles"]),
                "compressed_tiles": _count(cell["compressed_tiles"]),
                "visual_tokens": _count(cell["visual_tokens"]),
                "results": [_relative(Path(path), out) for path in cell["results"]],
                "samples": [_relative(Path(path), out) for path in cell["samples"]],
            }
            for cell in measured.cells.to_dict("records")
        ],
        "runs": [
            {
                "run": number,
                "row": title,
                "folder": _relative(run.folder, out),
                "record": run.record.model_dump(mode="json"),
            }
            for number, (title, run) in enumerate(named)
        ],
        "notes": list(table.notes),
    }


def _count(value: float) -> int | None:
    return None if pd.isna(value) else int(value)


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
