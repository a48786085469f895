"""Run folders as lmms-eval 0.7.3 and this package's models leave them, written by hand so that numbers are chosen."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vico_eval.report.scores.by_document import DocumentScores, plain
from vico_eval.report.scores.counted import CountedDocuments
from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import document_values

from .browser import Watched, chromium

RECORD: dict[str, Any] = {
    "version": 1,
    "system": "vico",
    "title": "ViCO",
    "command": ["python", "-m", "lmms_eval", "--model", "vico_internvl"],
    "versions": {"vico_eval": "0.1.0", "torch": "2.15.0", "python": "3.11.9"},
    "checkpoint": {"name": "vico-tiny", "path": "models/vico-tiny", "sha256": "ab" * 32},
    "donor": None,
    "method": "vico",
    "method_args": {"relative_threshold": 0.0, "absolute_threshold": 0.5},
    "settings": {"batch_size": 8, "max_tiles": None},
    "dtype": "bfloat16",
    "attention": "sdpa",
    "device": "cpu",
    "num_processes": 1,
    "started": "2026-11-21T11:40:00+00:00",
    "harness": "lmms-eval",
}

DATE = "20261121_194215"


def account(tiles: int = 4, compressed: int = 0) -> dict[str, Any]:
    """A tile has 16 visual tokens, a compressed one 4; the decoder has two layers."""
    tokens = 16 * (tiles - compressed) + 4 * compressed
    return {
        "tiles": tiles,
        "compressed_tiles": compressed,
        "visual_tokens": tokens,
        "visual_tokens_uncompressed": 16 * tiles,
        "visual_tokens_per_layer": [tokens, tokens],
        "text_tokens": 20,
        "generated_tokens": 2,
        "p_compress": None,
    }


def sample(doc_id: int, score: Any, *, metric: str = "exact_match", counts: Any = "default") -> dict[str, Any]:
    if counts == "default":
        counts = [{"output_tokens": 2, "account": account()}]
    return {
        "doc_id": doc_id,
        "target": "7",
        "filtered_resps": "7",
        "token_counts": counts,
        "doc_hash": "74234e98",
        metric: score,
        "input": "What number is it?",
    }


def answer_line(
    doc_id: int, text: str, *, task: str = "tiny_read", repeat: int = 0, tiles: int = 4, compressed: int = 0
) -> dict[str, Any]:
    """A line of a run's journal."""
    line = {"task": task, "split": "test", "doc_id": doc_id, "repeat": repeat, "asked": "so", "text": text}
    return line | {"account": account(tiles, compressed)}


def journal_of(task: str, lines: Sequence[dict[str, Any]]) -> str:
    """What a run's journal has of samples with accounts; lmms-eval keeps one of a question that is asked again."""
    text = ""
    for line in lines:
        answers = line.get("resps", line["filtered_resps"])
        answers = np.ravel(np.array(answers if isinstance(answers, list) else [answers], dtype=object)).tolist()
        accounts = [counts["account"] for counts in line["token_counts"] or () if counts and "account" in counts]
        for repeat, answer in enumerate(answers if accounts else ()):
            own = answer_line(line["doc_id"], str(answer), task=task, repeat=repeat)
            text += json.dumps(own | {"account": accounts[min(repeat, len(accounts) - 1)]}) + "\n"
    return text


def write_run(
    folder: Path,
    tasks: Mapping[str, Sequence[dict[str, Any]]],
    *,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    original: int | None = None,
    limit: float | None = None,
    date: str = DATE,
    config: Mapping[str, Any] | None = None,
    journal: bool = True,
    **record: Any,
) -> Path:
    """A run of `tasks` (samples lines by task); exact_match metrics follow from the lines unless `metrics` is given."""
    place = folder / "models__vico-tiny"
    place.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(RECORD | record))
    computed = {
        task: {"exact_match,none": sum(line["exact_match"] for line in lines) / len(lines)}
        for task, lines in tasks.items()
        if metrics is None
    }
    results = {
        "results": {
            "tiny": {"exact_match,none": 0.5, "alias": "tiny"},
            **{task: {"alias": f" - {task}"} | dict((metrics or computed).get(task, {})) for task in tasks},
        },
        "group_subtasks": {"tiny": list(tasks)},
        "configs": {
            task: {"task": task, "generation_kwargs": {"max_new_tokens": 8}, "num_fewshot": 0} for task in tasks
        },
        "versions": dict.fromkeys(tasks, "Yaml"),
        "n-samples": {
            task: {"original": original or len(lines), "effective": len(lines)} for task, lines in tasks.items()
        },
        "config": {"model": "vico_internvl", "model_args": "pretrained=vico-tiny", "limit": limit, "offset": 0}
        | dict(config or {}),
        "system_instruction": record.get("system_instruction"),
        "date": date,
    }
    (place / f"{date}_results.json").write_text(json.dumps(results))
    for task, lines in tasks.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (place / f"{date}_samples_{task}.jsonl").write_text(text, encoding="utf-8")
    if journal:
        with (folder / "answers.rank0.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(journal_of(task, lines) for task, lines in tasks.items()))
    return folder


TINY_TASKS = tuple(
    f"tiny_{name}" for name in ("read", "doc", "bar", "tallest", "count", "colour", "presence", "compare", "video")
)


def write_tiny_run(folder: Path, name: str, right: int, compressed: int, **record: Any) -> Path:
    """A run of all nine tiny tasks of four documents: the first `right` correct, `compressed` of 4 tiles low."""
    lines = [sample(doc_id, float(doc_id < right), counts=[{"account": account(4, compressed)}]) for doc_id in range(4)]
    return write_run(folder / "runs" / name, dict.fromkeys(TINY_TASKS, lines), system=name, **record)


@pytest.fixture
def tiny_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes such runs into the test's folder."""
    return partial(write_tiny_run, tmp_path)


def measurements(
    values: Mapping[tuple[str, int, str], Sequence[Mapping[str, Any]]], failed: Sequence[tuple[str, str]] = ()
) -> Measurements:
    """Fields of documents by row, run and benchmark; `failed` names (row, benchmark) with documents that failed."""
    cells = [
        {"row": row, "run": run, "benchmark": benchmark, "failed": int((row, benchmark) in failed)}
        for row, run, benchmark in values
    ]
    documents = {}
    for benchmark in dict.fromkeys(name for _, _, name in values):
        runs = {run: own for (_, run, name), own in values.items() if name == benchmark}
        documents[benchmark] = Documents(
            tasks={benchmark: len(next(iter(runs.values())))},
            runs={
                run: CountedDocuments(
                    scored=_scored([fields["score"] for fields in own]),
                    answers=np.array([fields["answer"] for fields in own], dtype=object),
                    media=[fields.get("media") for fields in own],
                    categories=[fields["category"] for fields in own] if "category" in own[0] else None,
                    p_compress=np.array([fields["p"] for fields in own]) if "p" in own[0] else None,
                )
                for run, own in runs.items()
            },
        )
    frame = pd.DataFrame(cells)
    return Measurements(cells=frame, documents=documents, values=document_values(frame, documents), notes=())


def _scored(scores: Sequence[float]) -> DocumentScores | None:
    return None if np.isnan(scores).any() else plain(scores)


@pytest.fixture(scope="session")
def page_runs(tmp_path_factory):
    """Runs by title and folder, of all that a page may have to show."""
    from .site import write_page_runs

    return write_page_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def site(page_runs, tmp_path_factory) -> Path:
    """The folder of their page."""
    from .site import write_site

    return write_site(page_runs, tmp_path_factory.mktemp("out") / "site").parent


@pytest.fixture(scope="module")
def browser():
    """Of a module: while it is open, no other event loop can run."""
    with chromium() as found:
        yield found


@pytest.fixture
def watched(browser, site):
    """Opens the page, and fails if something happened that must not."""
    found = Watched(browser, site)
    yield found
    found.close()
