"""How fast lmms-eval is with this package's adapter and with its own `internvl_hf`, on the same checkpoint.

Both models are in one process and answer the same documents through lmms-eval's evaluator, in turns: an evaluation by
`internvl_hf` stands before and behind each of ours, so that a slower minute of the machine slows both. What is timed is
the whole evaluation: building requests, answering, scoring. `internvl_hf` answers one document at a time; it takes no
other batch size.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml
from datasets import Dataset, Features, Image, Value
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models.chat.internvl_hf import InternVLHf
from lmms_eval.tasks import TaskManager
from loguru import logger
from transformers import (
    AutoTokenizer,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
)

from vico_eval.bench.random_models import flash_config
from vico_eval.bench.records import (
    beside_neighbours,
    check_choice,
    conditions,
    in_turns,
    records_table,
    run_script,
    write_record,
)
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.harnesses.lmms_eval.models import CompressedInternVL
from vico_eval.paths import models_dir, tasks_dir
from vico_eval.tiny.scenes import make_scene

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "evaluation"

TASKS = ("tiny_read", "tiny_doc", "tiny_bar", "tiny_tallest", "tiny_count", "tiny_colour", "tiny_presence")
"""Of one picture each, every document another one."""

DTYPES = ("bfloat16", "float32")
"""`internvl_hf` loads weights as the first; for the second they are converted once it has."""

BASELINE = "internvl_hf"

# As this package asks the built-in model: an empty system message, a picture's place, then what is asked.
TEMPLATE = (
    "<|im_start|>system\n<|im_end|>\n"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


@dataclass(frozen=True)
class Shape:
    """A checkpoint to evaluate and how much of it."""

    documents: int | None
    """Of each task; None is all of them."""

    tasks: tuple[str, ...]
    max_tiles: int
    batch_size: int


PAIRS = "two_questions"
"""A task of its own: two questions about each picture, as MME asks."""

SHAPES = {
    "tiny": Shape(documents=None, tasks=TASKS, max_tiles=12, batch_size=64),
    "0.6b": Shape(documents=1, tasks=("tiny_read", "tiny_count"), max_tiles=2, batch_size=2),
    "0.6b-pairs": Shape(documents=2, tasks=(PAIRS,), max_tiles=2, batch_size=2),
}


def tiny_model() -> InternVLForConditionalGeneration:
    """The built-in base model in transformers' class."""
    ours = load_model(find_checkpoint("vico-tiny-base"))
    model = InternVLForConditionalGeneration(_hf_config(ours.config)).to(torch.bfloat16)
    _take_weights(model, ours)
    return model


def random_model() -> InternVLForConditionalGeneration:
    """InternVL3.5-1B's sizes but for the vocabulary, which is the built-in tokenizer's: answers are to be text."""
    torch.manual_seed(0)
    config = flash_config("0.6b")
    small = find_checkpoint("vico-tiny-base").config.text_config
    for name in ("vocab_size", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(small, name))
    return InternVLForConditionalGeneration._from_config(_hf_config(config), dtype=torch.bfloat16)


def _hf_config(config: VicoInternVLConfig) -> InternVLConfig:
    return InternVLConfig(
        vision_config=config.vision_config.to_dict(),
        text_config=config.text_config.to_dict(),
        image_token_id=config.image_token_id,
        downsample_ratio=config.downsample_ratio,
        image_seq_length=config.num_high_tokens,
    )


def _take_weights(model: InternVLForConditionalGeneration, ours: VicoInternVL) -> None:
    assert ours.connector_high is not None
    projector = model.model.multi_modal_projector
    for mine, other in (
        (model.model.vision_tower, ours.vision_tower),
        (model.model.language_model, ours.language_model.model),
        (projector.layer_norm, ours.connector_high.norm),
        (projector.linear_1, ours.connector_high.linear_1),
        (projector.linear_2, ours.connector_high.linear_2),
    ):
        mine.load_state_dict(other.state_dict())
    model.tie_weights()


def save_checkpoint(model: InternVLForConditionalGeneration, max_tiles: int, folder: Path) -> None:
    """Model and processor in transformers' layout, which both evaluators read."""
    tokenizer = AutoTokenizer.from_pretrained(
        models_dir() / "vico-tiny-base", extra_special_tokens=TOKENS, trust_remote_code=False
    )
    model.resize_token_embeddings(len(tokenizer))  # the processor's own tokens, of videos, are more than the model has
    model.save_pretrained(folder)
    side = model.config.vision_config.image_size[0]
    pictures: dict[str, Any] = {
        "size": {"height": side, "width": side},
        "do_convert_rgb": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=max_tiles, **pictures),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**pictures),
        image_seq_length=model.config.image_seq_length,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def save_pairs(folder: Path) -> None:
    """The task `PAIRS`: one picture of the built-in benchmark, wide enough for two tiles, and two questions."""
    scene = make_scene("doc", np.random.default_rng(0), (2, 1))
    lines = [{"image_1": scene.images[0], "question": one.text, "answer": one.answer} for one in scene.questions[:2]]
    features = Features({"image_1": Image(), "question": Value("string"), "answer": Value("string")})
    folder.mkdir()
    Dataset.from_list(lines, features=features).to_parquet(folder / "test.parquet")
    for name in ("_shared.yaml", "utils.py"):
        shutil.copy(tasks_dir() / "tiny" / name, folder)
    task = {"include": "_shared.yaml", "task": PAIRS, "dataset_kwargs": {"data_files": {"test": "test.parquet"}}}
    (folder / f"{PAIRS}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


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


def measure(shape: Shape, folder: Path, dtype: str, rounds: int, device: str) -> dict[str, Any]:
    """Documents per second of both, and whether they answer alike; `folder` has checkpoint and task `PAIRS`."""
    checkpoint, records = folder / "checkpoint", folder / "records"
    manager = TaskManager("ERROR", include_path=[str(tasks_dir()), str(folder / "tasks")])
    plain = Evaluation(partial(internvl_hf, checkpoint, device, dtype), shape, manager)
    arguments = {"pretrained": str(checkpoint), "method": "vanilla", "max_tiles": shape.max_tiles, "system_prompt": ""}
    # What `internvl_hf` is made to compute in is slow on many CPUs; there ours takes float32 unless told otherwise.
    settings = dict.fromkeys([(dtype, 1), (dtype, shape.batch_size), ("float32", shape.batch_size)])
    ours = {
        f"vanilla_internvl, {own}, batch {size}": Evaluation(
            partial(CompressedInternVL, size, device=device, dtype=own, record_dir=str(records / own), **arguments),
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


def table(records: dict[str, dict[str, Any]]) -> str:
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


def run(
    shape: Annotated[
        str,
        typer.Option(
            help="tiny (the built-in model), 0.6b (random weights, ViT-300M), or 0.6b-pairs (two questions a picture)."
        ),
    ] = "tiny",
    dtype: Annotated[str, typer.Option(help="What internvl_hf computes in: bfloat16 or float32.")] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU. Default: PyTorch's own choice.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the record. Default: shape, device and dtype.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the record and the table.", show_default=False)] = RESULTS,
) -> None:
    """Measure how fast lmms-eval is with this package's adapter and with its own internvl_hf.

    Writes a record and a table to results/measured/evaluation. On two CPU cores a round of tiny takes two or three
    minutes, one of the others as long; tiny in bfloat16, slow on many CPUs, a quarter of an hour.

    \b
    Examples:
      python benchmarks/evaluation.py
      python benchmarks/evaluation.py --dtype bfloat16
      python benchmarks/evaluation.py --shape 0.6b --rounds 2
    """
    check_choice("--shape", shape, SHAPES)
    check_choice("--dtype", dtype, DTYPES)
    if threads is not None:
        torch.set_num_threads(threads)
    logger.remove()  # a line a task, and that it is chatty, would drown what is printed
    chosen = SHAPES[shape]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_checkpoint(tiny_model() if shape == "tiny" else random_model(), chosen.max_tiles, folder / "checkpoint")
        save_pairs(folder / "tasks")
        measured = measure(chosen, folder, dtype, rounds, device)
    record = {**conditions("benchmarks/evaluation.py", device), "shape": shape, "rounds": rounds, **measured}
    file = write_record(record, out, name or f"{shape}-{device}-{dtype}", table)
    typer.echo(json.dumps({title: round(system["speedup"], 2) for title, system in record["systems"].items()}))
    typer.echo(f"Wrote {file.name} and README.md in {file.parent}.", err=True)


if __name__ == "__main__":
    run_script(run)
