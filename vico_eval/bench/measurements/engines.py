"""Transformers' loop and vLLM on the same prompts: documents a second, and how much of what is decoded is kept.

A loop works on a batch until the longest of its answers has ended, so rows that ended before are computed for nothing.
Continuous batching gives such a row to the next prompt. What that saves depends on how unequal answers are, so theirs
are as skewed as those of a model that thinks: few long ones among many short.
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
"""Whose tiles, vision encoder and tokenizer the model has, so that the time is the decoder's."""

INITIALIZER_RANGE = 0.1
"""Of random weights: large enough that every token changes what comes next. At the usual 0.02 an answer is one token
again and again."""

LOUDNESS = {"small": 2.0, "0.6b": 2.75, "8b": 2.75}
"""Factor of the end of turn's row in a random output layer, by size. Its logit is then the largest about once in a
hundred tokens, wherever in the answer that is, so that lengths fall off geometrically. The more tokens a vocabulary
has, the larger is the largest of the others' logits."""

GPU_SHARE = 0.5
"""Of a GPU's memory, for vLLM; the loop's weights and cache have the rest."""

MAX_LENGTH = 2048
"""Tokens of a prompt with its answer, for which vLLM keeps room: 208 of them are visual, and questions are short."""

GOAL = 0.9
"""Useful share of decode steps that continuous batching should reach."""

LOOP, VLLM = "transformers", "vllm"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    size: str
    """Of the decoder, in `SIZES`."""

    documents: int
    batch_size: int
    """Of transformers' loop; vLLM takes all documents at once."""

    max_new_tokens: int
    device: str
    dtype: str


class Way:
    """An engine that answers the requests, again and again."""

    def __init__(self, engine: Engine, requests: Sequence[Request], steps: Steps) -> None:
        self._engine, self._requests, self._steps = engine, requests, steps
        self.answers: list[Answer] = []
        """Of the last run."""

        self.rows = 0
        """Rows of all decode steps of the last run."""

    def seconds(self) -> float:
        """Answers all requests once; returns what it took."""
        before, start = self._steps.rows, time.perf_counter()
        self.answers = self._engine.answer(self._requests)
        seconds = time.perf_counter() - start
        self.rows = self._steps.rows - before
        return seconds

    def described(self, seconds: Sequence[float]) -> dict[str, Any]:
        """What a record says of its runs, of which all gave the same answers."""
        kept = sum(answer.account.generated_tokens for answer in self.answers)
        return {
            "documents_per_second": len(self.answers) / float(np.median(seconds)),
            "tokens_per_second": kept / float(np.median(seconds)),
            "kept_tokens": kept,
            "decoded_rows": self.rows,
            "useful_share": kept / self.rows,
        }


def measure(settings: Settings, rounds: int) -> dict[str, Any]:
    """The record: documents a second of both ways, and how much of what they decode is kept.

    Raises:
        ConfigError: vLLM is not installed, or can't start.
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
    """Part of a record: both in turns, the loop before and behind vLLM."""
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
    """A checkpoint with the built-in model's vision encoder and a random decoder whose answers end now and then."""
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
    """Questions of the built-in benchmark about pictures, one each; none says how long its answer is to be."""
    rng = np.random.default_rng(0)
    tasks = [task for task in TASKS if task != "video"]
    scenes = [make_scene(tasks[number % len(tasks)], rng) for number in range(documents)]
    return [
        request(scene.questions[0].text, list(scene.images), key=f"document-{number}", max_new_tokens=max_new_tokens)
        for number, scene in enumerate(scenes)
    ]


def readme(records: dict[str, dict[str, Any]]) -> str:
    """The README beside the records."""
    lines = [
        "# What decodes: transformers or vLLM",
        "",
        "Random decoders of Qwen3's sizes behind the built-in model's vision encoder answer questions of the built-in",
        "benchmark greedily. Their end of turn is made likely enough that answers differ in length as those of a model",
        "that thinks do. Transformers' loop works on a batch until its longest answer has ended; vLLM gives a row that",
        "has ended to the next prompt. Useful share: tokens that are kept, of the rows of all decode steps. Speed-up:",
        "the loop's time, before and behind, over vLLM's; median (quartiles) over the rounds. Both engines are in one",
        "environment and share the vision encoder, whose time is in both. Written by `benchmarks/engines.py`.",
        "",
        "| decoder | where | dtype | engine | documents | tokens of an answer | documents/s | tokens/s | useful share "
        "| speed-up | equal answers |",
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
    """What there is to say of a record, in a line or two."""
    loop, vllm = record[LOOP], record[VLLM]
    lines = [
        f"vLLM is {vllm['speedup']:.2f} times as fast. Useful share of decode steps: {vllm['useful_share']:.2f}, "
        f"transformers {loop['useful_share']:.2f}."
    ]
    if vllm["useful_share"] < GOAL:
        lines.append(f"Expected of vLLM: at least {GOAL}.")
    return lines
