"""The speed of lmms-eval with this package's adapter and with its own `internvl_hf`, on the same checkpoint.

Both models are in one process and answer the same documents through lmms-eval's evaluator. They take turns, with an
evaluation by `internvl_hf` before and after each of ours, so that disturbances of the machine affect both. The time is
that of the whole evaluation: building requests, answering and scoring. `internvl_hf` only supports a batch size of 1.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models.chat.internvl_hf import InternVLHf
from lmms_eval.tasks import TaskManager

from vico_eval.bench.measurements.evaluated import PAIRS, random_model, save_checkpoint, save_pairs, tiny_model
from vico_eval.bench.records import beside_neighbours, conditions, in_turns, records_table
from vico_eval.harnesses.lmms_eval.models import compressed_internvl
from vico_eval.paths import tasks_dir

TASKS = ("tiny_read", "tiny_doc", "tiny_bar", "tiny_tallest", "tiny_count", "tiny_colour", "tiny_presence")
"""Tasks with one image per document, all of them different."""

DTYPES = ("bfloat16", "float32")
"""`internvl_hf` loads weights as bfloat16; for float32 they are converted after loading."""

BASELINE = "internvl_hf"


@dataclass(frozen=True)
class Shape:
    """The checkpoint and the size of an evaluation."""

    documents: int | None
    """Number of documents per task; None means all."""

    tasks: tuple[str, ...]
    max_tiles: int
    batch_size: int

    size: str | None = None
    """Size of a random decoder, a name in `SIZES`; None means the built-in model."""


SHAPES = {
    "tiny": Shape(documents=None, tasks=TASKS, max_tiles=12, batch_size=64),
    "0.6b": Shape(size="0.6b", documents=1, tasks=("tiny_read", "tiny_count"), max_tiles=2, batch_size=2),
    "0.6b-pairs": Shape(size="0.6b", documents=2, tasks=(PAIRS,), max_tiles=2, batch_size=2),
    "8b": Shape(size="8b", documents=16, tasks=TASKS, max_tiles=12, batch_size=16),
}


class Evaluation:
    """An evaluation of one model on the documents of a shape."""

    def __init__(self, make: Callable[[], lmms], shape: Shape, manager: TaskManager) -> None:
        self._make = make
        self._shape = shape
        self._manager = manager
        self.answers: list[str] = []
        """The answers of the last run, in the order of the tasks."""

    def __call__(self) -> float:
        """Evaluate once and return the seconds, without loading the model."""
        model = self._make()  # made again each time, because the evaluator removes the model's weights when it is done
        start = time.perf_counter()
        results = simple_evaluate(
            model=model,
            tasks=list(self._shape.tasks),
            limit=self._shape.documents,
            task_manager=self._manager,
            bootstrap_iters=0,
            log_samples=True,
            # The default of lmms-eval's command line; otherwise it decodes all images a second time for scoring.
            cli_args=Namespace(process_with_media=False),
        )
        seconds = time.perf_counter() - start
        samples = results["samples"]
        self.answers = [
            str(line["filtered_resps"])
            for task in self._shape.tasks
            for line in sorted(samples[task], key=lambda line: line["doc_id"])
        ]
        return seconds


def measure(name: str, dtype: str, rounds: int, device: str) -> dict[str, Any]:
    """Measure one of `SHAPES` and return the record; `dtype` is the precision of `internvl_hf`."""
    shape = SHAPES[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = tiny_model() if shape.size is None else random_model(shape.size, device)
        save_checkpoint(model, shape.max_tiles, folder / "checkpoint")
        del model  # frees memory for the two models loaded next
        save_pairs(folder / "tasks")
        compared = compare(shape, folder, dtype, rounds, device)
    return {**conditions("benchmarks/evaluation.py", device), "shape": name, "rounds": rounds, **compared}


def compare(shape: Shape, folder: Path, dtype: str, rounds: int, device: str) -> dict[str, Any]:
    """Compare both models' throughput and answers; `folder` has the checkpoint and the task `PAIRS`."""
    checkpoint, records = folder / "checkpoint", folder / "records"
    manager = TaskManager("ERROR", include_path=[str(tasks_dir()), str(folder / "tasks")])
    plain = Evaluation(partial(internvl_hf, checkpoint, device, dtype), shape, manager)
    arguments: dict[str, Any] = {
        "pretrained": str(checkpoint),
        "method": "vanilla",
        "max_tiles": shape.max_tiles,
        "system_prompt": "",
    }
    # The dtype of `internvl_hf` may be slow on the CPU, where ours uses float32 by default.
    settings = dict.fromkeys([(dtype, 1), (dtype, shape.batch_size), ("float32", shape.batch_size)])
    ours = {
        f"vanilla_internvl, {own}, batch {size}": Evaluation(
            partial(compressed_internvl, size, device=device, dtype=own, record_dir=str(records / own), **arguments),
            shape,
            manager,
        )
        for own, size in settings
    }
    for each in (plain, *ours.values()):
        each()  # warm-up, in which kernels are chosen and data sets are read
    before_and_behind, seconds = in_turns(plain, ours, rounds)
    beside = np.asarray(before_and_behind)
    documents = len(plain.answers)
    return {
        "documents": documents,
        "baseline": f"{BASELINE}, {dtype}",
        "baseline_seconds": beside.ravel().tolist(),
        "baseline_documents_per_second": documents / float(np.median(beside)),
        "systems": {
            title: beside_neighbours(before_and_behind, seconds[title], place)
            | {
                "documents_per_second": documents / float(np.median(seconds[title])),
                "equal_answers": _num_equal(each.answers, plain.answers),
            }
            for place, (title, each) in enumerate(ours.items())
        },
    }


def internvl_hf(checkpoint: Path, device: str, dtype: str) -> lmms:
    """Load lmms-eval's own model with weights of type `dtype`."""
    model = InternVLHf(str(checkpoint), device=device, device_map=device)
    model.model.to(getattr(torch, dtype))
    return model


def _num_equal(answers: Sequence[str], others: Sequence[str]) -> int:
    return sum(one.strip() == other.strip() for one, other in zip(answers, others, strict=True))


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Speed of a whole evaluation, compared with lmms-eval's own model",
        "",
        "Documents per second through lmms-eval's evaluator, including requests and scoring, with `internvl_hf` and",
        "with this package's adapter, on the same checkpoint in one process. Speed-up: the time of `internvl_hf` in",
        "its runs before and after ours, over our time; median (quartiles) over the rounds. `internvl_hf` loads",
        "weights as bfloat16, which is slow on a CPU without bfloat16 instructions; for float32 they were converted",
        "after loading. It only supports batches of one document. Ours also writes a record, token accounts and",
        "thumbnails of the images. Other work on the machine affects the numbers. Written by",
        "`benchmarks/evaluation.py`.",
        "",
        "| checkpoint | processor | threads | system | documents | documents/s | speed-up | equal answers |",
        "|:--|:--|--:|:--|--:|--:|--:|--:|",
    ]
    for record in records.values():
        start = f"| {record['shape']} | {record['processor']} | {record['threads']}"
        number = record["documents"]
        plain = record["baseline_documents_per_second"]
        lines.append(f"{start} | {record['baseline']} | {number} | {plain:.3g} | | |")
        for title, system in record["systems"].items():
            low, high = system["speedup_quartiles"]
            lines.append(
                f"{start} | {title} | {number} | {system['documents_per_second']:.3g} "
                f"| {system['speedup']:.2f} ({low:.2f} to {high:.2f}) | {system['equal_answers']} of {number} |"
            )
    lines += ["", *records_table(records)]
    return "\n".join(lines) + "\n"


def summary(record: Mapping[str, Any]) -> str:
    """Return the speed-ups as JSON."""
    return json.dumps({title: round(system["speedup"], 2) for title, system in record["systems"].items()})
