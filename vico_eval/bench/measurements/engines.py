"""Transformers' generation loop and vLLM on the same prompts: throughput, and the share of decoded tokens that is kept.

The loop decodes a batch until its longest answer has ended, so computing rows that ended earlier is wasted. Continuous
batching gives such a row to the next prompt. The saving depends on the distribution of answer lengths, so these are
skewed like those of a reasoning model: a few long answers among many short ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vico_eval.bench.measurements.engine_steps import Steps, VllmSteps, count_rows
from vico_eval.bench.random_models import decoder_config
from vico_eval.bench.records import beside_neighbours, conditions, in_turns, records_table
from vico_eval.engine.decode.backend import Backend
from vico_eval.engine.decode.in_process import InProcess, Started, check_installed
from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.model import request
from vico_eval.engine.requests import Request
from vico_eval.engine.row import Answer
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_tokenizer
from vico_eval.families.internvl.decoder_export import export_decoder
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.prompts import get_template
from vico_eval.tiny.scenes import TASKS, make_scene

SMALL = "vico-tiny-base"
"""The model that provides tiling, vision encoder and tokenizer; being small, it leaves most of the time to the
decoder."""

INITIALIZER_RANGE = 0.1
"""Standard deviation of random weights, large enough that every token affects the next ones. With the usual 0.02 an
answer repeats a single token."""

LOUDNESS = {"small": 2.0, "0.6b": 2.75, "8b": 2.75}
"""Factor for the end-of-turn row of a random output layer, by size. With it, end of turn is the most likely token about
once in a hundred tokens at any position, so that lengths are geometrically distributed. A larger vocabulary needs a
larger factor, because the maximum of the other logits is larger."""

GPU_SHARE = 0.5
"""vLLM's share of the GPU's memory; the rest is for the loop's weights and cache."""

MAX_LENGTH = 2048
"""Maximum number of tokens of prompt and answer in vLLM; 208 of them are visual, and questions are short."""

GOAL = 0.9
"""The useful share of decode steps that continuous batching should reach."""

LOOP, VLLM = "transformers", "vllm"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a measurement."""

    size: str
    """The decoder's size, a name in `SIZES`."""

    documents: int
    batch_size: int
    """Batch size of transformers' loop; vLLM gets all documents at once."""

    max_new_tokens: int
    device: str
    dtype: str


class Way:
    """An engine that answers the same requests repeatedly."""

    def __init__(self, engine: Engine, requests: Sequence[Request], steps: Steps) -> None:
        self._engine, self._requests, self._steps = engine, requests, steps
        self.answers: list[Answer] = []
        """The answers of the last run."""

        self.rows = 0
        """Total number of rows in the last run's decode steps."""

    def seconds(self) -> float:
        """Answer all requests once and return the seconds it took."""
        before, start = self._steps.rows, time.perf_counter()
        self.answers = self._engine.answer(self._requests)
        seconds = time.perf_counter() - start
        self.rows = self._steps.rows - before
        return seconds

    def described(self, seconds: Sequence[float]) -> dict[str, Any]:
        """Return the record entry of its runs, all of which gave the same answers."""
        kept = sum(answer.account.generated_tokens for answer in self.answers)
        return {
            "documents_per_second": len(self.answers) / float(np.median(seconds)),
            "tokens_per_second": kept / float(np.median(seconds)),
            "kept_tokens": kept,
            "decoded_rows": self.rows,
            "useful_share": kept / self.rows,
        }


def measure(settings: Settings, rounds: int) -> dict[str, Any]:
    """Measure throughput and useful share of both engines and return the record.

    Raises:
        ConfigError: vLLM is not installed or can't start.
    """
    check_installed()
    asked = skewed_requests(settings.documents, settings.max_new_tokens)
    with tempfile.TemporaryDirectory() as place:
        checkpoint, decoder = Path(place) / "model", Path(place) / "decoder"
        save_random_model(settings.size, settings.dtype, checkpoint)
        export_decoder(find_checkpoint(str(checkpoint)), decoder)
        arguments = {name: getattr(settings, name) for name in ("device", "dtype", "batch_size")}
        opened = open_engine({"pretrained": str(checkpoint), **arguments}, show_progress=False)
        model, of_loop, of_vllm = opened.engine.model, Steps(), Steps()
        count_rows(model.language_model.get_output_embeddings(), of_loop)
        transport = InProcess(
            Started(
                model=decoder,
                dtype=settings.dtype,
                gpu_memory_utilization=None if settings.device == "cpu" else GPU_SHARE,
                max_model_len=MAX_LENGTH,
            ),
            is_on_cpu=settings.device == "cpu",
            unused_token=model.image_token_id,
            stat_loggers=[lambda *_: VllmSteps(of_vllm)],
        )
        with closing(Backend(transport)) as backend:
            continuous = Engine(
                model,
                opened.tokenizer,
                opened.preprocessor,
                [opened.method],
                batch_size=settings.batch_size,
                show_progress=False,
                backend=backend,
            )
            measured = compare(Way(opened.engine, asked, of_loop), Way(continuous, asked, of_vllm), rounds)
    found = conditions("benchmarks/engines.py", settings.device)
    found["versions"]["vllm"] = backend.facts["version"]
    return {**found, **asdict(settings), "rounds": rounds, **measured}


def compare(loop: Way, continuous: Way, rounds: int) -> dict[str, Any]:
    """Measure both engines in turns, with the loop before and after vLLM; return a part of the record."""
    before_and_behind, seconds = in_turns(loop.seconds, {VLLM: continuous.seconds}, rounds)
    whole = [second for of_round in before_and_behind for second in of_round]
    lengths = [answer.account.generated_tokens for answer in loop.answers]
    return {
        "answer_tokens": {
            "fewest": min(lengths),
            "quartiles": [float(value) for value in np.quantile(lengths, (0.25, 0.5, 0.75))],
            "most": max(lengths),
        },
        "equal_answers": sum(
            one.text == other.text for one, other in zip(loop.answers, continuous.answers, strict=True)
        ),
        LOOP: loop.described(whole) | {"seconds": whole},
        VLLM: continuous.described(seconds[VLLM]) | beside_neighbours(before_and_behind, seconds[VLLM], 0),
    }


def save_random_model(size: str, dtype: str, folder: Path) -> None:
    """Save a checkpoint with the built-in vision encoder and a random decoder whose answers end at random."""
    found = find_checkpoint(SMALL)
    tokenizer = load_tokenizer(found)
    config = deepcopy(found.config)
    small = config.text_config
    config.text_config = decoder_config(
        size,
        initializer_range=INITIALIZER_RANGE,
        eos_token_id=small.eos_token_id,
        pad_token_id=small.pad_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model: VicoInternVL = VicoInternVL._from_config(config, dtype=getattr(torch, dtype))  # type: ignore[no-untyped-call]
    end = tokenizer.convert_tokens_to_ids(get_template(config.template).stop)
    with torch.no_grad():
        model.language_model.get_output_embeddings().weight[end] *= LOUDNESS[size]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def skewed_requests(documents: int, max_new_tokens: int) -> list[Request]:
    """Return one question about each of a number of the built-in benchmark's scenes, without any hint of a length."""
    rng = np.random.default_rng(0)
    tasks = [task for task in TASKS if task != "video"]
    scenes = [make_scene(tasks[number % len(tasks)], rng) for number in range(documents)]
    return [
        request(scene.questions[0].text, list(scene.images), key=f"document-{number}", max_new_tokens=max_new_tokens)
        for number, scene in enumerate(scenes)
    ]


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Decoding with transformers or vLLM",
        "",
        "Random decoders of Qwen3's sizes with the built-in model's vision encoder answer questions of the built-in",
        "benchmark with greedy decoding. End of turn is made likely enough that answer lengths vary like those of a",
        "reasoning model. Transformers' loop decodes a batch until its longest answer has ended; vLLM gives a row",
        "that has ended to the next prompt. Useful share: kept tokens divided by the rows of all decode steps.",
        "Speed-up: the loop's time before and after, over vLLM's; median (quartiles) over the rounds. Both engines",
        "run in one environment and share the vision encoder, whose time is included for both. Written by",
        "`benchmarks/engines.py`.",
        "",
        "| decoder | processor | dtype | engine | documents | tokens per answer | documents/s | tokens/s "
        "| useful share | speed-up | equal answers |",
        "|:--|:--|:--|:--|--:|:--|--:|--:|--:|--:|--:|",
    ]
    for record in records.values():
        tokens = record["answer_tokens"]
        quartiles = ", ".join(f"{value:.0f}" for value in tokens["quartiles"])
        for engine in (LOOP, VLLM):
            measured = record[engine]
            title = f"{engine}, batch {record['batch_size']}" if engine == LOOP else engine
            end = "| | |"
            if engine == VLLM:
                low, high = measured["speedup_quartiles"]
                equal = f"{record['equal_answers']} of {record['documents']}"
                end = f"| {measured['speedup']:.2f} ({low:.2f} to {high:.2f}) | {equal} |"
            lines.append(
                f"| {record['size']} | {record['processor']} | {record['dtype']} | {title} | {record['documents']} "
                f"| {tokens['fewest']} to {tokens['most']} (quartiles {quartiles}) "
                f"| {measured['documents_per_second']:.3g} | {measured['tokens_per_second']:.3g} "
                f"| {measured['useful_share']:.2f} {end}"
            )
    lines += ["", *records_table(records)]
    return "\n".join(lines) + "\n"


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return a record's summary in one or two lines."""
    loop, vllm = record[LOOP], record[VLLM]
    lines = [
        f"vLLM is {vllm['speedup']:.2f} times as fast as transformers. Useful share of decode steps: "
        f"{vllm['useful_share']:.2f} with vLLM, {loop['useful_share']:.2f} with transformers."
    ]
    if vllm["useful_share"] < GOAL:
        lines.append(f"Expected a useful share of at least {GOAL} with vLLM.")
    return lines
