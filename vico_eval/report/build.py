"""From finished runs to a table's files: CSV, LaTeX, Markdown, the picture and where every number came from."""

import gc
import json
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from vico_eval.errors import OutputError, ReportError
from vico_eval.report.benchmarks import Benchmark, TableSpec, table_spec
from vico_eval.report.beside import find_model, with_published
from vico_eval.report.comparison import comparison_sentences
from vico_eval.report.layout import Table, build_table, find_baseline, order_rows
from vico_eval.report.loyalty import loyalty
from vico_eval.report.measurements import CountedRun, Measurements, count_run, measure
from vico_eval.report.runs import read_run
from vico_eval.report.tidy import tidy_numbers
from vico_eval.report.uncertainty import compare_with_baseline
from vico_eval.report.vlmevalkit import read_any_run
from vico_eval.report.writers import to_latex, to_markdown

_WORTH_A_PROCESS = 50_000_000
"""Bytes of samples whose reading takes longer than starting a process."""


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

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file written."""
        return (self.csv, self.latex, self.markdown, self.uncertainty, self.loyalty, *self.figures, self.provenance)


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
) -> Report:
    """Reads finished runs and writes their table into `out`.

    Args:
        runs: each row's title (None: the run record's) and a run's folder, lmms-eval's --output_path or --work-dir of
            `vico-eval vlmeval run`. Runs of the same
            title make one row: its mean, with the spread over the runs.
        table: a suite (`vico-table3`), its table (`vico-3`) or one of your own.
        out: where table3.csv, .tex, .md (the suite's `file_stem`), uncertainty.csv, loyalty.csv, the pictures
            (retention, benchmarks, ratios; .pdf, .png) and provenance.json go; made if missing.
        baseline: title or system of the row that counts as 100%; by default the row of the system `vanilla`.
        benchmarks: titles of the table's benchmarks to keep; by default all of them.
        only: tasks to read of a run of lmms-eval, by its folder; all where it isn't named.
        note: what a reader has to know besides what the runs say.
        published: whether the paper's numbers of a table stand beneath the measured ones; of which model, where the
            paper's table has several.

    Raises:
        ConfigError: there is no such suite, or no paper's table with such a model.
        ReportError: runs that don't count (all of them are named), can't be compared or have no benchmark of the table.
        OutputError: `out` can't be written.
    """
    spec = table_spec(table) if isinstance(table, str) else table
    columns = _choose(spec.benchmarks, benchmarks)
    paper = find_model(spec.name, published if isinstance(published, str) else None) if published else None
    counted = _count_runs(runs, only or {}, columns)
    systems = _systems(counted)
    base = find_baseline(systems, baseline)
    measured = measure(counted, columns)
    built = build_table(measured, columns, systems, caption=spec.caption, baseline=base)
    if paper is not None:
        built = with_published(built, systems, paper)
    if note is not None:
        built = built.with_note(note)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(built, measured, counted, systems, out, spec)
    except OSError as error:
        raise OutputError(f"The report can't be written to {out}: {error}. Choose another folder.") from error


def _write(
    table: Table,
    measured: Measurements,
    runs: Sequence[CountedRun],
    systems: Mapping[str, str],
    out: Path,
    spec: TableSpec,
) -> Report:
    # Only here: matplotlib takes half a second to load, and what reads tables draws nothing.
    from vico_eval.report.bar_figures import draw_bars
    from vico_eval.report.figures import draw_retention, write_figure

    figures: tuple[Path, ...] = ()
    try:
        figures = write_figure(draw_retention(table), out)
    except ReportError as error:
        table = table.with_note(f"No picture: {error}")
    for stem, figure in draw_bars(table).items():
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
    places = [_relative(run.folder, out) for run in runs]
    tidy = tidy_numbers(table, measured, systems, places)
    for frame, path in ((tidy, report.csv), (uncertainty, report.uncertainty), (agreement, report.loyalty)):
        frame.to_csv(path, index=False, lineterminator="\n")
    report.latex.write_text(to_latex(table, label=f"tab:{spec.name}"), encoding="utf-8")
    report.markdown.write_text(to_markdown(table), encoding="utf-8")
    provenance = json.dumps(_provenance(table, measured, runs, out), indent=2, ensure_ascii=False, allow_nan=False)
    report.provenance.write_text(provenance + "\n", encoding="utf-8")
    return report


def _choose(benchmarks: Sequence[Benchmark], titles: Sequence[str] | None) -> list[Benchmark]:
    if titles is None:
        return list(benchmarks)
    known = {benchmark.title: benchmark for benchmark in benchmarks}
    if unknown := [title for title in titles if title not in known]:
        raise ReportError(f"The table has no benchmark {', '.join(unknown)}; it has {', '.join(known)}.")
    return [benchmark for benchmark in benchmarks if benchmark.title in titles]


def _count_runs(
    runs: Sequence[tuple[str | None, Path]], only: Mapping[Path, Collection[str]], columns: Sequence[Benchmark]
) -> list[CountedRun]:
    """What the runs say of the columns; large ones are read in two processes."""
    if not runs:
        raise ReportError("A report needs at least one run folder.")
    resolved = [path.resolve() for _, path in runs]
    if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
        raise ReportError(f"The same run was given twice: {', '.join(twice)}.")
    titles, paths = zip(*runs, strict=True)
    arguments = (titles, paths, [only.get(path) for path in paths], [columns] * len(runs))
    num_bytes = sum(file.stat().st_size for path in paths for file in path.rglob("*.jsonl"))
    if num_bytes < _WORTH_A_PROCESS or len(runs) == 1:
        counted = list(map(_count_run, *arguments))
    else:
        # Spawned: a copy of a process that has threads, as pandas' libraries start them, may hang.
        with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
            counted = list(pool.map(_count_run, *arguments))
    if problems := [problem for problem in counted if isinstance(problem, str)]:
        raise ReportError("\n".join(problems))
    return [run for run in counted if isinstance(run, CountedRun)]


def _count_run(
    title: str | None, path: Path, only: Collection[str] | None, columns: Sequence[Benchmark]
) -> CountedRun | str:
    """What a run says of the columns, or why it doesn't count."""
    # What is read has no cycles of garbage, and the search for them takes a third of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        run = read_any_run(path) if only is None else read_run(path, only)
        return count_run(" ".join((title or run.record.title).split()), run, columns)
    except ReportError as error:
        return str(error)
    finally:
        if was_enabled:
            gc.enable()


def _systems(runs: Sequence[CountedRun]) -> dict[str, str]:
    systems: dict[str, str] = {}
    for run in runs:
        if systems.setdefault(run.row, run.record.system) != run.record.system:
            raise ReportError(
                f"The row `{run.row}` got runs of two systems, {systems[run.row]} and {run.record.system}. Give one of "
                "them another title."
            )
    return systems


def _provenance(table: Table, measured: Measurements, runs: Sequence[CountedRun], out: Path) -> dict[str, Any]:
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
                "row": run.row,
                "folder": _relative(run.folder, out),
                "record": run.record.model_dump(mode="json"),
            }
            for number, run in enumerate(runs)
        ],
        "notes": list(table.notes),
    }


def _count(value: float) -> int | None:
    return None if pd.isna(value) else int(value)


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
