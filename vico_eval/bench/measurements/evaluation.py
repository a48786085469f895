"""How fast lmms-eval is with this package's adapter and with its own `internvl_hf`, on the same checkpoint.

Both models are in one process and answer the same documents through lmms-eval's evaluator, in turns: an evaluation by
`internvl_hf` stands before and behind each of ours, so that a slower minute of the machine slows both. What is timed is
the whole evaluation: building requests, answering, scoring. `internvl_hf` answers one document at a time; it takes no
other batch size.
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
"""Of one picture each, every document another one."""

DTYPES = ("bfloat16", "float32")
"""`internvl_hf` loads weights as the first; for the second they are converted once it has."""

BASELINE = "internvl_hf"


@dataclass(frozen=True)
class Shape:
    """A checkpoint to evaluate and how much of it."""

    documents: int | None
    """Of each task; None is all of them."""

    tasks: tuple[str, ...]
    max_tiles: int
    batch_size: int

    size: str | None = None
    """Of a random decoder, as in `SIZES`; None is the built-in model."""


SHAPES = {
    "tiny": Shape(documents=None, tasks=TASKS, max_tiles=12, batch_size=64),
    "0.6b": Shape(size="0.6b", documents=1, tasks=("tiny_read", "tiny_count"), max_tiles=2, batch_size=2),
    "0.6b-pairs": Shape(size="0.6b", documents=2, tasks=(PAIRS,), max_tiles=2, batch_size=2),
    "8b": Shape(size="8b", documents=16, tasks=TASKS, max_tiles=12, batch_size=16),
}


class Evaluation:
    """A model and the documents that it answers."""

    def __init__(self, make: Callable[[], lmms], shape: Shape, manager: TaskManager) -> None:
        self._make = make
        self._shape = shape
        self._manager = manager
        self.answers: list[str] = []
        """Of the last run, task after task."""

    def __call__(self) -> float:
        """Evaluate once; returns its seconds, without those of loading the model."""
        model = self._make()  # anew: the evaluator takes a model's weights away when it is done
        start = time.perf_counter()
        results = simple_evaluate(
            model=model,
            tasks=list(self._shape.tasks),
            limit=self._shape.documents,
            task_manager=self._manager,
            bootstrap_iters=0,
            log_samples=True,
            # As from lmms-eval's command line: otherwise it decodes all pictures a second time, for scoring.
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
    """The record of one of `SHAPES`; `dtype` is what `internvl_hf` computes in."""
    shape = SHAPES[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = tiny_model() if shape.size is None else random_model(shape.size, device)
        save_checkpoint(model, shape.max_tiles, folder / "checkpoint")
        del model  # two more are about to be loaded
        save_pairs(folder / "tasks")
        compared = compare(shape, folder, dtype, rounds, device)
    return {**conditions("benchmarks/evaluation.py", device), "shape": name, "rounds": rounds, **compared}


def compare(shape: Shape, folder: Path, dtype: str, rounds: int, device: str) -> dict[str, Any]:
    """Documents per second of both, and whether they answer alike; `folder` has checkpoint and task `PAIRS`."""
    checkpoint, records = folder / "checkpoint", folder / "records"
    manager = TaskManager("ERROR", include_path=[str(tasks_dir()), str(folder / "tasks")])
    plain = Evaluation(partial(internvl_hf, checkpoint, device, dtype), shape, manager)
    arguments: dict[str, Any] = {
        "pretrained": str(checkpoint),
        "method": "vanilla",
        "max_tiles": shape.max_tiles,
        "system_prompt": "",
    }
    # What `internvl_hf` is made to compute in is slow on many CPUs; there ours takes float32 unless told otherwise.
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
        each()  # kernels are chosen and data sets are read the first time
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
    """lmms-eval's own model, its weights as `dtype`."""
    model = InternVLHf(str(checkpoint), device=device, device_map=device)
    model.model.to(getattr(torch, dtype))
    return model


def _num_equal(answers: Sequence[str], others: Sequence[str]) -> int:
    return sum(one.strip() == other.strip() for one, other in zip(answers, others, strict=True))


def readme(records: dict[str, dict[str, Any]]) -> str:
    """The README beside the records."""
    lines = [
        "# Speed of a whole evaluation, beside lmms-eval's own model",
        "",
        "Documents a second through lmms-eval's evaluator, requests and scores included, with `internvl_hf` and with",
        "this package's adapter, on the same checkpoint in one process. Speed-up: time of `internvl_hf` over ours,",
        "against its runs before and behind; median (quartiles) over the rounds. `internvl_hf` loads weights as",
        "bfloat16, which is slow on a CPU without instructions for it; for float32 they were converted after that. It",
        "takes batches of one document only. Ours also writes its record, accounts and small copies of the pictures.",
        "Other work on the machine shows in the records. Written by `benchmarks/evaluation.py`.",
        "",
        "| checkpoint | where | threads | system | documents | documents/s | speed-up | equal answers |",
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
    """The speed-ups, as JSON."""
    return json.dumps({title: round(system["speedup"], 2) for title, system in record["systems"].items()})
