"""Time and memory of a report, from samples files to its tables.

The runs are synthetic (`vico_eval.bench.measurements.invented_runs`). Each measurement runs in a separate process.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from vico_eval.bench.measurements.invented_runs import columns, table, write_runs
from vico_eval.bench.processes import in_new_process
from vico_eval.bench.records import conditions, made_by
from vico_eval.report.read_runs import without_garbage_search
from vico_eval.report.scores.count_run import count_run
from vico_eval.report.scores.counted import CountedRun
from vico_eval.runs.read import read_run


def measure(rows: int, documents: int, cores: int, rounds: int) -> dict[str, Any]:
    """Measure a report's time and memory for a number of rows, documents per benchmark, and cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        runs = write_runs(folder, rows, documents)
        wholes = [in_new_process(measure_whole, runs, folder / "report") for _ in range(rounds)]
        stages = in_new_process(measure_stages, runs, folder / "report")
        published = [measure_published(folder / "published") for _ in range(rounds)]
    record = conditions("benchmarks/report.py", "cpu")
    versions = {package: version(package) for package in ("vico-eval", "numpy", "pandas", "pydantic", "matplotlib")}
    return record | {
        "versions": versions | {"python": record["versions"]["python"]},
        "threads": cores,
        "rows": rows,
        "benchmarks": len(columns()),
        "documents": documents,
        "rounds": rounds,
        "seconds": [whole["seconds"] for whole in wholes],
        "cpu_seconds": [whole["cpu_seconds"] for whole in wholes],
        "peak_gib": [whole["peak_gib"] for whole in wholes],
        "stages": stages,
        "published_seconds": published,
    }


def measure_whole(runs: list[Path], out: Path) -> dict[str, float]:
    """Return the seconds, CPU seconds and peak memory of a whole report."""
    # Imported late: a report's worker processes load this module too, and must not load more than under the command.
    from vico_eval.report import write_report

    is_done, sums = threading.Event(), [0]
    watcher = threading.Thread(target=_watch_memory, args=(is_done, sums))
    watcher.start()
    start, computed = time.perf_counter(), time.process_time()
    write_report([(None, run) for run in runs], table=table(), out=out)
    seconds, computed = time.perf_counter() - start, time.process_time() - computed
    is_done.set()
    watcher.join()
    own, readers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "seconds": seconds,
        "cpu_seconds": computed + readers.ru_utime + readers.ru_stime,
        "peak_gib": max(own.ru_maxrss / 2**20, max(sums) / 2**30),
    }


def _watch_memory(is_done: threading.Event, sums: list[int]) -> None:
    """Append the total memory of this process and its children in bytes, twenty times per second."""
    while not is_done.wait(0.05):
        processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        num_pages = 0
        for process in processes:
            with suppress(OSError):  # the process may have ended
                num_pages += int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
        sums.append(num_pages * resource.getpagesize())


def measure_stages(runs: list[Path], out: Path) -> dict[str, float]:
    """Return the seconds of a report's stages, run one after another."""
    from vico_eval.report.figures.draw import write_pictures
    from vico_eval.report.paired.best import best_of
    from vico_eval.report.paired.columns import columns_of
    from vico_eval.report.paired.draws import Draws
    from vico_eval.report.stats.loyalty import loyalty
    from vico_eval.report.stats.side_by_side import measure
    from vico_eval.report.stats.uncertainty import Criterion, compare_with_baseline
    from vico_eval.report.tables.layout import build_table
    from vico_eval.report.tables.numbers import tidy_numbers

    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
        return result

    def count(place: Path) -> CountedRun:
        run = timed("reading", lambda: read_run(place))
        counted: CountedRun = timed("counting", lambda: count_run(run.record.title, run, spec.benchmarks))
        return counted

    spec = table()
    with without_garbage_search():
        counted = [count(run) for run in runs]
    systems = {run.row: run.record.system for run in counted}
    baseline = counted[0].row
    measured = timed("counting", lambda: measure(counted, spec.benchmarks))
    built = timed(
        "table", lambda: build_table(measured, spec.benchmarks, systems, caption=spec.caption, baseline=baseline)
    )
    timed("pictures", lambda: write_pictures(built, measured.cells, out))
    rows = list(systems)
    draws = timed("draws", lambda: Draws(rows, columns_of(measured, rows, built.columns)))
    timed("uncertainty", lambda: compare_with_baseline(draws, baseline))
    timed("best", lambda: best_of(built, draws, Criterion().alpha))
    timed("loyalty", lambda: loyalty(measured, rows, built.columns, baseline))
    places = [str(run) for run in runs]
    timed("tidy numbers", lambda: tidy_numbers(built, measured, systems, places, places))
    return seconds


def measure_published(out: Path) -> float:
    """Return the seconds of `vico-eval papers`, including the start of Python."""
    command = [sys.executable, "-c", "from vico_eval.cli import main; main()", "papers", "--out", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Time and memory of a report",
        "",
        "`write_report` from samples files to tables and figures, in a separate process with two workers that read",
        "large runs and draw: median over the rounds. CPU time and peak memory include all three processes; memory is",
        "sampled twenty times per second. The stages are measured in another process without workers.",
        "`vico-eval papers` is timed from the start of Python. The runs are synthetic: 13 tiles and 36 layers per",
        "document, questions of 200 to 500 characters, answers of 1 to 60 words. Other work on the machine lengthens",
        "all times, including CPU time. Written by `benchmarks/report.py`.",
        "",
        "| rows x benchmarks x documents | processor | cores | report | CPU | peak memory | published tables |",
        "|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for record in records.values():
        size = f"{record['rows']} x {record['benchmarks']} x {record['documents']:,}"
        where = f"{record['processor']} | {record['threads']}"
        seconds, cpu, published = (median(record[key]) for key in ("seconds", "cpu_seconds", "published_seconds"))
        memory = max(record["peak_gib"])
        lines.append(f"| {size} | {where} | {seconds:.1f} s | {cpu:.1f} s | {memory:.2f} GiB | {published:.1f} s |")
    for name, record in records.items():
        lines += ["", f"| stage of {name} | seconds |", "|:--|--:|"]
        lines += [f"| {stage} | {seconds:.2f} |" for stage, seconds in record["stages"].items()]
    lines += ["", "| record | rounds | cores | versions | date | command |", "|:--|--:|--:|:--|:--|:--|"]
    lines += [f"| [{name}]({name}.json) | {made_by(record)} |" for name, record in records.items()]
    return "\n".join(lines) + "\n"


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return one line per stage, one for the whole report and one for the published tables."""
    whole, memory = median(record["seconds"]), max(record["peak_gib"])
    return [
        *(f"{stage:<16} {seconds:6.2f} s" for stage, seconds in record["stages"].items()),
        f"{'whole report':<16} {whole:6.2f} s, {memory:.2f} GiB",
        f"{'published':<16} {median(record['published_seconds']):6.2f} s",
    ]
