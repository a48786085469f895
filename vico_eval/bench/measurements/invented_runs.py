"""Synthetic runs in the file formats of lmms-eval and this package's models.

They have long questions, answers of 1 to 60 words, accounts with 13 tiles and 36 layers, and several questions per
image. The columns are those of ViCO's Tables 1, 2 and 3 together.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vico_eval import score_rules, suites
from vico_eval.report.scores.benchmarks import TableSpec, as_column, table_spec
from vico_eval.report.scores.by_document import read_scores
from vico_eval.runs.folders import ANSWERS, journal_file
from vico_eval.runs.results import Document, TaskResult
from vico_eval.runs.schema import RECORD_NAME

TILES = 13
LAYERS = 36
DOCUMENTS_A_PICTURE = 3
DATE = "20261121_194215"

WORDS = ("the", "a", "number", "of", "red", "green", "blue", "tall", "sign", "says", "left", "upper", "chart", "shows")


def columns() -> dict[str, suites.Benchmark]:
    """Return the catalogue entries of ViCO's Tables 1, 2 and 3, each once."""
    catalogue = suites.load_benchmarks()
    names = [name for table in (1, 2, 3) for name in suites.load_suite(f"vico-table{table}").benchmarks]
    return {name: catalogue[name] for name in dict.fromkeys(names)}


def table() -> TableSpec:
    """Return ViCO's Tables 1, 2 and 3 as one table."""
    benchmarks = tuple(as_column(benchmark) for benchmark in columns().values())
    return replace(table_spec("vico-3"), name="report-speed", file_stem="table", benchmarks=benchmarks)


def write_runs(folder: Path, num_rows: int, num_documents: int) -> list[Path]:
    """Write run folders with synthetic answers; the first is the baseline's."""
    benchmarks = columns()
    runs = [folder / f"run{row}" for row in range(num_rows)]
    for row, run in enumerate(tqdm(runs, desc="writing runs", unit="run")):
        _write_run(run, row, benchmarks, num_documents)
    return runs


def _write_run(run: Path, row: int, benchmarks: Mapping[str, suites.Benchmark], num_documents: int) -> None:
    place = run / "model"
    place.mkdir(parents=True)
    record = _record(row)
    (run / RECORD_NAME).write_text(json.dumps(record), encoding="utf-8")
    results: dict[str, Any] = {
        "config": {"model": record["command"][-1], "model_args": f"row={row}"},
        "group_subtasks": {},
    }
    for part in ("results", "configs", "versions", "n-samples"):
        results[part] = {}
    journal = []
    for name, benchmark in benchmarks.items():
        tasks = suites.task_names(benchmark)
        for number, task in enumerate(tasks):
            own = range(number * num_documents // len(tasks), (number + 1) * num_documents // len(tasks))
            lines = _samples(name, benchmark.score, row, own)
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (place / f"{DATE}_samples_{task}.jsonl").write_text(text, encoding="utf-8")
            journal += [json.dumps(_answer(task, line)) + "\n" for line in lines]
            results["results"][task] = _metrics(benchmark.score, lines)
            results["configs"][task] = {"task": task, "generation_kwargs": {"max_new_tokens": 64}, "num_fewshot": 0}
            results["versions"][task] = "Yaml"
            results["n-samples"][task] = {"original": len(own), "effective": len(own)}
    (place / f"{DATE}_results.json").write_text(json.dumps(results), encoding="utf-8")
    journal_file(run, ANSWERS, 0).write_text("".join(journal), encoding="utf-8")


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
    """Make the lines of a samples file."""
    lines: list[dict[str, Any]] = []
    for document in documents:
        shared = random.Random(f"{name} {document}")  # for values that all rows share
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
    """Make the journal line that corresponds to a line of the samples file."""
    named = {"task": task, "split": "test", "doc_id": line["doc_id"], "repeat": 0, "asked": line["doc_hash"][:16]}
    times = {"reading": 0.01, "encoding": 0.02, "own": line["doc_id"] / 1000, "rows": 1}
    return named | {"text": line["filtered_resps"], "seconds": times, "account": line["token_counts"][0]["account"]}


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
    """Return a task's fields for its `number`th document with a score of `value`, from 0 to 1."""
    if not isinstance(score, (score_rules.MetricScore, score_rules.DocumentMeanScore)):
        return _scored_otherwise(str(score.documents), value > 0.5, number)
    field: Any = value
    for name in reversed(score.field[1:]):
        field = {"question_id": "q", "category": "invented", name: field}
    return {score.field[0]: field}


def _scored_otherwise(kind: str, is_right: bool, number: int) -> dict[str, Any]:
    """Return the fields of a task whose score is not a mean over documents."""
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
    raise ValueError(f"the fields of {kind} are unknown")


def _metrics(score: score_rules.Score, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the metrics that lmms-eval would report for the lines."""
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
        results_path=Path("invented"),
        samples_path=Path("invented"),
    )
    scored = read_scores(str(score.documents), [task])
    assert scored is not None
    total = float(scored.values.mean()) * score.full / 100
    keys = score.keys if isinstance(score, score_rules.MetricSumScore) else (score.key,)
    return {key: total / len(keys) for key in keys}
