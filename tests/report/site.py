"""A page of a report made from runs that are written here, with all that a page may have to show."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from vico_eval.report.costs.frame import cost_columns, document_costs
from vico_eval.report.endings.counts import endings
from vico_eval.report.page.kept import Sample, sample_of
from vico_eval.report.page.site import PageContent, write_page
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.scores.benchmarks import table_spec
from vico_eval.report.scores.count_run import count_run
from vico_eval.report.stats.loyalty import loyalty
from vico_eval.report.stats.sentences import comparison_sentences
from vico_eval.report.stats.side_by_side import measure
from vico_eval.report.stats.uncertainty import compare_with_baseline
from vico_eval.report.tables.layout import build_table, order_rows
from vico_eval.report.tables.numbers import tidy_numbers
from vico_eval.runs.read import read_run
from vico_eval.runs.results import Run

from .conftest import TINY_TASKS, account, sample, write_run

HOSTILE = '<script>window.hacked = true</script><img src=x onerror="window.hacked = true"> </script><!--'
TITLE = 'ViCO <img src=x onerror="window.hacked=true"> & co.'
HALF = "half \ud83d a pair\u2028 and a line"
LONG = "word " * 2000
COSTS = {"encoder": 300, "router": 0, "high": 50, "low": 20, "token": 1000, "pair": 1, "head": 10, "cached": 64}
MEDIA = {"tiny_read": "ab" * 8, "tiny_compare": "cd" * 8, "tiny_video": "ef" * 8}


def seen(task: str, doc_id: int, compressed: tuple[int, ...] = ()) -> dict:
    """An account: one picture of 2 x 2 tiles and a thumbnail; two of one tile; 64 frames; or none."""
    if task == "tiny_colour" and doc_id == 0:
        return account(0) | {"grids": []}
    grids = {"tiny_compare": [[1, 1, 1]] * 2, "tiny_video": [[1, 1, 1]] * 64}.get(task, [[2, 2, 5]])
    tiles = sum(grid[2] for grid in grids)
    media = f"{MEDIA[task][:-1]}{doc_id}" if task in MEDIA else "../../../etc/passwd"
    scores = [0.9 if place in compressed else 0.1 for place in range(tiles)]
    own = {"grids": grids, "compressed": compressed, "media": media, "p_compress": scores}
    return account(tiles, len(compressed)) | own


def lines(task: str, changes: dict[int, tuple[str, float]], compressed: tuple[int, ...] = ()) -> list[dict]:
    """Six documents of a task, right with the answer 7 but for the changes."""
    found = []
    for doc_id in range(6):
        answer, score = changes.get(doc_id, ("7", 1.0))
        line = sample(doc_id, score, counts=[{"account": seen(task, doc_id, compressed)}])
        found.append(line | {"filtered_resps": answer, "input": f"What <b>number</b> is {doc_id}? {HOSTILE}"})
    return found


def write_surrogates(folder: Path) -> None:
    """Puts half of a pair into an answer, which a file of UTF-8 can only have escaped."""
    (samples,) = folder.rglob("*_samples_tiny_read.jsonl")
    for path in (samples, samples.parents[1] / "answers.rank0.jsonl"):
        path.write_text(path.read_text("utf-8").replace("HALF", json.dumps(HALF)[1:-1]), encoding="utf-8")


def write_page_runs(root: Path) -> list[tuple[str | None, Path]]:
    """Vanilla; two seeds of Random; ViCO with changed answers, a document that failed and no run on Video."""
    for task, count in (("tiny_read", 1), ("tiny_compare", 2), ("tiny_video", 8)):
        for doc_id in range(6):
            for number in range(count):
                media = f"{MEDIA[task][:-1]}{doc_id}"
                place = 8 * number if task == "tiny_video" else number
                path = root / "previews" / media[:2] / f"{media}-{place}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 48), (40 * doc_id, 120, 90)).save(path)
    kept = {"previews": "../previews", "costs": COSTS}
    base = {"tiny_read": {2: ("wrong", 0.0), 3: ("wrong", 0.0)}}
    changed = {
        "tiny_read": {1: (HOSTILE, 0.0), 3: ("also wrong", 0.0), 4: (LONG, 1.0), 5: ("HALF", 1.0)},
        "tiny_bar": {0: ("8", 0.0)},
    }
    vanilla = {task: lines(task, base.get(task, {})) for task in TINY_TASKS}
    vico = {task: lines(task, changed.get(task, {}), (0, 3, 4)) for task in TINY_TASKS[:-2]}
    vico["tiny_compare"] = lines("tiny_compare", {}, (1,))
    vico["tiny_doc"][2] |= {"filtered_resps": "", "token_counts": [None], "exact_match": 0.0}
    folders = [
        (None, write_run(root / "vanilla", vanilla, system="vanilla", title="Vanilla", **kept)),
        (TITLE, write_run(root / "vico", vico, **kept)),
    ]
    for seed in (0, 1):
        random = {task: lines(task, {seed: ("other", 0.0)}) for task in TINY_TASKS}
        arguments = {"system": "random", "method_args": {"seed": seed}, "costs": COSTS}
        folders.append(("Random", write_run(root / f"random{seed}", random, **arguments)))
    write_surrogates(root / "vico")
    failure = {"task": "tiny_doc", "split": "test", "doc_id": 2, "reason": f"no such image {HOSTILE}"}
    (root / "vico" / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    return folders


def write_site(
    runs, folder: Path, keep=None, change: Callable[[str, Sample], Sample] = lambda _, own: own, asked=()
) -> Path:
    """The page of runs, by title and folder or as they are, as `write_report` makes it of what it has computed.

    `change` makes what is kept of a document of a benchmark into what the page gets; `asked` are columns of cost.
    """
    spec = table_spec("tiny")
    columns = [benchmark for benchmark in spec.benchmarks if keep is None or benchmark.title in keep]
    read = [own if isinstance(own, Run) else read_run(own) for _, own in runs]
    named = [(title or run.record.title, run) for (title, _), run in zip(runs, read, strict=True)]
    systems = order_rows({title: run.record.system for title, run in named}, spec.systems)
    counted = [count_run(title, run, columns) for title, run in named]
    measured = measure(counted, columns)
    table = build_table(measured, columns, systems, caption=spec.caption, baseline="Vanilla")
    rows = list(table.summary.index)
    agreement = loyalty(measured, rows, table.columns, "Vanilla")
    uncertainty = compare_with_baseline(Draws(rows, columns_of(measured, rows, table.columns)), "Vanilla")
    samples = [
        {
            column.title: [
                change(column.title, sample_of(document))
                for task in column.tasks
                for document in run.tasks[task].documents
            ]
            for column in columns
            if set(column.tasks) <= set(run.tasks)
        }
        for run in read
    ]
    costs = document_costs(measured.cells, table.summary, None, "Vanilla")
    table = replace(table, comparison=comparison_sentences(uncertainty, agreement), costs=cost_columns(costs, asked))
    content = PageContent(
        table=table,
        measured=measured,
        read=lambda number, title: samples[number][title],
        previews={place: run.folder / run.record.previews for place, run in enumerate(read) if run.record.previews},
        numbers=tidy_numbers(table, measured, systems, [""] * len(read), [""] * len(read)),
        uncertainty=uncertainty,
        loyalty=agreement,
        endings=endings(measured.cells, rows, table.columns),
        runs=counted,
        costs=costs,
    )
    return write_page(folder, content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def documents(page) -> list[str]:
    return page.eval_on_selector_all(".card", "cards => cards.map((card) => card.dataset.document)")
