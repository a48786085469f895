"""Eight methods at four budgets on a random model, with a different image for each document."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from vico_eval.bench.measurements.engine_rows import EngineRows
from vico_eval.bench.measurements.two_ways import compare
from vico_eval.bench.random_models import random_flash_model
from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.methods import registry
from vico_eval.methods.registry import Method

METHODS = ("divprune", "cdpruner", "visionzip", "vispruner", "holov", "top_attention", "random_tokens", "dart")
"""Seven methods that select tokens before the decoder and one inside it."""

BUDGETS = (0.5, 0.25, 0.125, 0.0625)
"""Shares of the visual tokens that are kept."""

BATCH_SIZE = 2
NEW_TOKENS = 2

PRINTABLE = range(32, 127)
"""Tokens of the built-in tokenizer that are printable ASCII."""


def measure(size: str, documents: int, rounds: int, device: str) -> dict[str, Any]:
    """Measure the sweep on a model of a size in `SIZES`, in float32 on a CPU and bfloat16 elsewhere.

    Returns a part of the record.
    """
    rows = sweep(size, documents, device)
    rows.warm_up()
    return {
        "size": size,
        "methods": list(METHODS),
        "budgets": list(BUDGETS),
        "dtype": _dtype(device),
        "batch_size": BATCH_SIZE,
        "new_tokens": NEW_TOKENS,
        **compare(rows.separate, rows.shared, rounds),
    }


def sweep(size: str, documents: int, device: str) -> EngineRows:
    """Set up all methods at all budgets on one model, with documents of one tile each."""
    dtype = _dtype(device)
    model, tokenizer = random_flash_model(size, device=device, dtype=dtype)
    _spell(model)
    if dtype == "float32":
        prepare_for_cpu(model)  # as `open_engine` does
    return EngineRows(
        model=model,
        tokenizer=tokenizer,
        preprocessor=partial(Preprocessor, tokenizer, InternVLPrompting(InternVLSettings.of(model.config))),
        methods={f"{name} {budget:g}": _method(name, budget, model) for name in METHODS for budget in BUDGETS},
        requests=[_request(number, model.config.tile_size) for number in range(documents)],
        batch_size=BATCH_SIZE,
    )


def _dtype(device: str) -> str:
    return "float32" if torch.device(device).type == "cpu" else "bfloat16"


def _spell(model: VicoInternVL) -> None:
    """Make a random model answer with printable characters, so that different answers are different texts.

    Zeroing a token's row of the head keeps it from being the most likely one.
    """
    rows = model.language_model.get_output_embeddings().weight.data
    printable = rows[list(PRINTABLE)].clone()
    rows.zero_()
    rows[list(PRINTABLE)] = printable


def _method(name: str, budget: float, model: VicoInternVL) -> Method:
    method = registry.build(name, {"keep_ratio": budget}).resolved()
    method.check(facts_of(model.config, "random weights"))
    return method


def _request(number: int, side: int) -> Request:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Request(
        key=f"sweep/test/{number}",
        messages=(Message("user", (ImageInput(Image.fromarray(pixels)), Text("What is in the picture?"))),),
        generation=GenerationSettings(max_new_tokens=NEW_TOKENS),
    )
