"""How long a report takes from samples files to its tables, and how much memory.

The runs are invented, but their files are as lmms-eval and this package's models write them: long questions, answers
of 1 to 60 words, accounts of 13 tiles and 36 layers, several questions a picture. The columns are those of ViCO's
Tables 1, 2 and 3 together. Each measurement is a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from tqdm import tqdm

from vico_eval import score_rules, suites
from vico_eval.bench.records import conditions, made_by, run_script, write_record
from vico_eval.report.read_runs import without_garbage_search
from vico_eval.report.scores.benchmarks import TableSpec, as_column, table_spec
from vico_eval.report.scores.by_document import read_scores
from vico_eval.report.scores.count_run import count_run
from vico_eval.report.scores.counted import CountedRun
from vico_eval.runs.read import read_run
from vico_eval.runs.results import Document, TaskResult

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "report-speed"

TILES = 13
LAYERS = 36
DOCUMENTS_A_PICTURE = 3
DATE = "20261121_194215"

WORDS = ("the", "a", "number", "of", "red", "green", "blue", "tall", "sign", "says", "left", "upper", "chart", "shows")


def columns() -> dict[str, suites.Benchmark]:
    """Entries of the catalogue that ViCO's Tables 1, 2 and 3 have, each once."""
    catalogue = suites.load_benchmarks()
    names = [name for table in (1, 2, 3) for name in suites.load_suite(f"vico-table{table}").benchmarks]
    return {name: catalogue[name] for name in dict.fromkeys(names)}


def table() -> TableSpec:
    """ViCO's Tables 1, 2 and 3 in one."""
    benchmarks = tuple(as_column(benchmark) for benchmark in columns().values())
    return replace(table_spec("vico-3"), name="report-speed", file_stem="table", benchmarks=benchmarks)


def write_runs(folder: Path, num_rows: int, num_documents: int) -> list[Path]:
    """Run folders of invented answers; the first is the baseline's."""
    benchmarks = [(name, benchmark.score, suites.task_names(benchmark)) for name, benchmark in columns().items()]
    runs = []
    for row in tqdm(range(num_rows), desc="writing runs", unit="run"):
        run = folder / f"run{row}"
        place = run / "model"
        place.mkdir(parents=True)
        record = _record(row)
        (run / "record.json").write_text(json.dumps(record), encoding="utf-8")
        results: dict[str, Any] = {
            "config": {"model": record["command"][-1], "model_args": f"row={row}"},
            "group_subtasks": {},
        }
        for name in ("results", "configs", "versions", "n-samples"):
            results[name] = {}
        journal = []
        for name, score, tasks in benchmarks:
            for number, task in enumerate(tasks):
                own = range(number * num_documents // len(tasks), (number + 1) * num_documents // len(tasks))
                lines = _samples(name, score, row, own)
                text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                (place / f"{DATE}_samples_{task}.jsonl").write_text(text, encoding="utf-8")
                journal += [json.dumps(_answer(task, line)) + "\n" for line in lines]
                results["results"][task] = _metrics(score, lines)
                results["configs"][task] = {"task": task, "generation_kwargs": {"max_new_tokens": 64}, "num_fewshot": 0}
                results["versions"][task] = "Yaml"
                results["n-samples"][task] = {"original": len(own), "effective": len(own)}
        (place / f"{DATE}_results.json").write_text(json.dumps(results), encoding="utf-8")
        (run / "answers.rank0.jsonl").write_text("".join(journal), encoding="utf-8")
        runs.append(run)
    return runs


def _record(row: int) -> dict[str, Any]:
    system = "vico" if row else "vanilla"
    return {
        "version": 1,
        "system": system,
        "title": f"Row {row}" if row else "Vanilla",
        "command": ["python", "-m", "lmms_eval", "--model", f"{system}_internvl"],
        "versions": {"python": "3.11.7"},
        "checkpoint": {"name": "invented", "path": "invented", "sha256": None},
        "donor": None,
        "method": system,
        "method_args": {},
        "dtype": "bfloat16",
        "attention": "sdpa",
        "device": "cpu",
        "num_processes": 1,
        "started": "2026-11-21T11:40:00+00:00",
        "harness": "lmms-eval",
    }


def _samples(name: str, score: score_rules.Score, row: int, documents: Iterable[int]) -> list[dict[str, Any]]:
    """Lines of a samples file."""
    lines: list[dict[str, Any]] = []
    for document in documents:
        shared = random.Random(f"{name} {document}")  # what all rows have in common
        own = random.Random(f"{name} {document} {row}")
        question = _text(shared, shared.randint(200, 500))
        answer = " ".join(shared.choices(WORDS, k=shared.randint(1, 60)))
        value = shared.choice((0.0, 1.0, 1.0, 0.3, 0.6))
        if row and own.random() < 0.4:
            kept = answer.split()[: own.randint(0, 5)]
            answer = " ".join([*kept, *own.choices(WORDS, k=own.randint(1, 60))])
            value = own.choice((0.0, 1.0, 1.0, 0.3, 0.6))
        line = {
            "doc_id": len(lines),
            "target": shared.choice(WORDS),
            "filtered_resps": answer,
            "token_counts": [{"input_tokens": 900, "output_tokens": 20, "account": _account(name, row, document, own)}],
            "doc_hash": f"{shared.getrandbits(256):064x}",
            "input_media": [f"images/{document}.png"],
            **_fields(score, value, len(lines)),
            "input": question,
        }
        lines.append(line)
    return lines


def _answer(task: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """The line of the run's own journal that a samples line comes from."""
    named = {"task": task, "split": "test", "doc_id": line["doc_id"], "repeat": 0, "asked": line["doc_hash"][:16]}
    return named | {"text": line["filtered_resps"], "account": line["token_counts"][0]["account"]}


def _text(generator: random.Random, length: int) -> str:
    return " ".join(generator.choices(WORDS, k=length // 4)).ljust(length, "?")[:length]


def _account(name: str, row: int, document: int, own: random.Random) -> dict[str, Any]:
    scores = [round(own.random(), 6) for _ in range(TILES)]
    compressed = [place for place, score in enumerate(scores) if row and score > 0.5]
    tokens = 256 * TILES - 192 * len(compressed)
    return {
        "tiles": TILES,
        "compressed_tiles": len(compressed),
        "visual_tokens": tokens,
        "visual_tokens_uncompressed": 256 * TILES,
        "visual_tokens_per_layer": [tokens] * 3 + [tokens - 50 * (row % 4)] * (LAYERS - 3),
        "text_tokens": 120,
        "generated_tokens": 20,
        "p_compress": scores,
        "media": f"{random.Random(f'{name} {document // DOCUMENTS_A_PICTURE}').getrandbits(64):016x}",
        "grids": [[4, 3, TILES]],
        "compressed": compressed,
    }


def _fields(score: score_rules.Score, value: float, number: int) -> dict[str, Any]:
    """What the task writes of a document whose score, on 0 to 1, is `value`, and which is its `number`th."""
    if not isinstance(score, (score_rules.MetricScore, score_rules.DocumentMeanScore)):
        return _scored_otherwise(str(score.documents), value > 0.5, number)
    field: Any = value
    for name in reversed(score.field[1:]):
        field = {"question_id": "q", "category": "invented", name: field}
    return {score.field[0]: field}


def _scored_otherwise(kind: str, is_right: bool, number: int) -> dict[str, Any]:
    """The same of a task whose score is no mean over documents."""
    half, side = divmod(number, 2)
    right = float(is_right)
    match kind:
        case "pope":
            truth = ("yes", "no")[side]
            said = truth if is_right else ("no", "yes")[side]
            return {"pope_f1_score": {"question_id": "q", "score": right, "prediction": said, "ground_truth": truth}}
        case "mme":
            field = {"question_id": f"{half}.png", "category": f"category {half % 14}", "score": right}
            return {"mme_perception_score" if half % 14 < 10 else "mme_cognition_score": field}
        case "mmbench_v11":
            return {
                "mmbench_v11_exact": {"index": half + side * 1_000_000, "options": 2, "letter": "A", "score": right}
            }
        case "mmiu":
            return {"mmiu_macro20": {"task": f"task {number % 20}", "spatial": True, "letter": "A", "score": right}}
        case "mmmu":
            reply = "A" if is_right else "B"
            return {"mmmu_acc": {"question_type": "multiple-choice", "answer": "A", "parsed_pred": [reply]}}
    raise ValueError(f"no fields of {kind} are known")


def _metrics(score: score_rules.Score, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What lmms-eval would report of the lines."""
    match score:
        case score_rules.MetricScore():
            return {score.key: sum(line[score.field[0]] for line in lines) / len(lines)}
        case score_rules.DocumentMeanScore():
            return {}
    documents = tuple(Document(doc_id=line["doc_id"], fields=line, account=None) for line in lines)
    task = TaskResult(
        name="invented",
        metrics={},
        documents=documents,
        num_available=len(documents),
        version="",
        settings={},
        results_path=RESULTS,
        samples_path=RESULTS,
    )
    scored = read_scores(str(score.documents), [task])
    assert scored is not None
    total = float(scored.values.mean()) * score.full / 100
    keys = score.keys if isinstance(score, score_rules.MetricSumScore) else (score.key,)
    return {key: total / len(keys) for key in keys}


def measure_whole(runs: list[Path], out: Path) -> dict[str, float]:
    """Seconds of a whole report, those in which its processes computed, and the peak of their memory."""
    # Only here and below: a report's own processes load this file again, as they load none behind a command.
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
    """Adds the memory of this process and those that it started, in bytes, twenty times a second."""
    while not is_done.wait(0.05):
        processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        num_pages = 0
        for process in processes:
            with suppress(OSError):  # it may have ended
                num_pages += int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
        sums.append(num_pages * resource.getpagesize())


def measure_stages(runs: list[Path], out: Path) -> dict[str, float]:
    """Seconds of a report's stages, one after the other."""
    from vico_eval.report.figures.draw import write_pictures
    from vico_eval.report.stats.loyalty import loyalty
    from vico_eval.report.stats.side_by_side import measure
    from vico_eval.report.stats.uncertainty import compare_with_baseline
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
        return timed("counting", lambda: count_run(run.record.title, run, spec.benchmarks))

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
    timed("uncertainty", lambda: compare_with_baseline(measured, list(systems), built.columns, baseline))
    timed("loyalty", lambda: loyalty(measured, list(systems), built.columns, baseline))
    places = [str(run) for run in runs]
    timed("tidy numbers", lambda: tidy_numbers(built, measured, systems, places, places))
    return seconds


def measure_published(out: Path) -> float:
    """Seconds of `vico-eval papers`, start of Python included."""
    command = [sys.executable, "-c", "from vico_eval.cli import main; main()", "papers", "--out", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def in_new_process(work: Callable[..., dict[str, float]], *arguments: object) -> dict[str, float]:
    """What `work` returns in a Python of its own, whose memory holds nothing else."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def readme(records: dict[str, dict[str, Any]]) -> str:
    """The README beside the records."""
    lines = [
        "# Time and memory of a report",
        "",
        "`write_report` from samples files to its tables and pictures, in a process of its own that has two others",
        "read large runs and draw: median over the rounds. CPU and memory are of all three, memory at its highest,",
        "looked at twenty times a second. The stages are from a further process that does all itself.",
        "`vico-eval papers` counts from the start of Python. The runs are invented: 13 tiles and 36 layers a",
        "document, questions of 200 to 500 characters, answers of 1 to 60 words. Other work on the machine makes all",
        "longer, CPU time too. Written by `benchmarks/report.py`.",
        "",
        "| rows x benchmarks x documents | where | cores | report | CPU | peak memory | published tables |",
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


def run(
    rows: Annotated[int, typer.Option(min=2, help="Of the table, a run each.")] = 20,
    documents: Annotated[int, typer.Option(min=14, help="Of each of the 17 benchmarks.")] = 1000,
    cores: Annotated[int, typer.Option(min=1, help="On which the report may run.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Times that the report is made.")] = 3,
    name: Annotated[str | None, typer.Option(help="Of the record. Default: rows and documents.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the record and the table.", show_default=False)] = RESULTS,
) -> None:
    """Measure how long a report takes from samples files to its tables, and how much memory.

    Writes runs of invented answers to a temporary folder (600 MB for 20 rows x 1,000 documents), makes their report
    again and again, and writes a record and a table to results/measured/report-speed. Takes three minutes. Linux only.

    \b
    Examples:
      python benchmarks/report.py
      python benchmarks/report.py --rows 3 --documents 100 --rounds 1
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        runs = write_runs(folder, rows, documents)
        wholes = [in_new_process(measure_whole, runs, folder / "report") for _ in range(rounds)]
        stages = in_new_process(measure_stages, runs, folder / "report")
        published = [measure_published(folder / "published") for _ in range(rounds)]
    record = conditions("benchmarks/report.py", "cpu")
    versions = {package: version(package) for package in ("vico-eval", "numpy", "pandas", "pydantic", "matplotlib")}
    record |= {
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
    file = write_record(record, out, name or f"{rows}x{documents}", readme)
    for stage, seconds in stages.items():
        typer.echo(f"{stage:<16} {seconds:6.2f} s")
    typer.echo(f"{'whole report':<16} {median(record['seconds']):6.2f} s, {max(record['peak_gib']):.2f} GiB")
    typer.echo(f"{'published':<16} {median(published):6.2f} s")
    typer.echo(f"Wrote {file.name} and README.md in {file.parent}.", err=True)


if __name__ == "__main__":
    run_script(run)
