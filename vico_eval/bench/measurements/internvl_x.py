"""The cost of InternVL-X's parts: visual tokens by layer, decoder operations, and prefill time relative to Base.

The rows are those of the paper's Tables 2 and 4. Weights are random but have real shapes, because time does not depend
on the tokens' contents. Token counts are from the account of one answer of each row's model about one image.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers.models.internvl import InternVLVisionConfig

from vico_eval.bench.flops import prefill_flops
from vico_eval.bench.random_models import decoder_config
from vico_eval.bench.records import SIZES, conditions, in_turns, made_by, neighbours
from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.engine.engine import Engine
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.families.internvl.prompts import IMAGE_TOKEN
from vico_eval.methods import registry
from vico_eval.methods.lvtc import LVTCSettings
from vico_eval.tiny.tokenizer import build_tokenizer

VISION_WIDTHS = {"small": 128, "0.6b": 1024}
"""Width of the vision tokens that connectors and LVTC's projectors read, for each supported decoder size."""

BASE, BASE_STAR = "Base", "Base*"


@dataclass(frozen=True)
class Row:
    """One model of the paper's tables."""

    method: str
    tokens: int = 256
    """Number of visual tokens per tile at the decoder's input."""

    many_tiles: bool = False
    """Whether the image may have several tiles. The paper's rows without RVTC have one."""


ROWS = {
    BASE: Row("vanilla"),
    BASE_STAR: Row("vanilla", tokens=1024),
    "+PVTC": Row("pvtc"),
    "+LVTC": Row("lvtc"),
    "+PVTC+LVTC": Row("pvtc+lvtc"),
    "Base-HD": Row("rvtc_ratio", many_tiles=True),
    "+RVTC": Row("rvtc_edge", many_tiles=True),
    "Full": Row("rvtc_edge+pvtc+lvtc", many_tiles=True),
}
"""Title -> model. Base-HD has InternVL's own tiling, the baseline for RVTC."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The image, the decoder and the device of a measurement."""

    size: str
    """The decoder's size, a name in `VISION_WIDTHS`."""

    picture: tuple[int, int]
    """The image's width and height in px, for the rows with several tiles."""

    max_tiles: int
    """Maximum number of tiles of that image, without the thumbnail."""

    device: str
    dtype: str


class Bench:
    """Random models of all rows with a shared decoder, and one image."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(0)
        self.tokenizer = build_tokenizer()
        self.image_token_id: int = self.tokenizer.get_vocab()[IMAGE_TOKEN]
        self.picture = Image.new("RGB", settings.picture)
        self.max_tiles = settings.max_tiles
        self.device = settings.device
        self.dtype = getattr(torch, settings.dtype)
        self.text_config = decoder_config(settings.size)
        self.vision_config = InternVLVisionConfig(
            hidden_size=VISION_WIDTHS[settings.size],
            num_hidden_layers=1,
            num_attention_heads=16,
            intermediate_size=VISION_WIDTHS[settings.size],
            image_size=(448, 448),
            patch_size=(14, 14),
        )
        self.decoder: nn.Module | None = None
        self.runs = {title: RowRun(self, row, title) for title, row in ROWS.items()}

    def model(self, row: Row) -> VicoInternVL:
        """Build a row's model; all models share one decoder."""
        names = row.method.split("+")
        of_part = {"pvtc": {}, "lvtc": vars(LVTCSettings.defaults(self.text_config.num_hidden_layers))}
        model = VicoInternVL(
            VicoInternVLConfig(
                vision_config=self.vision_config,
                text_config=self.text_config,
                image_token_id=self.image_token_id,
                downsample_ratio=(row.tokens / 1024) ** 0.5,
                parts={name: settings for name, settings in of_part.items() if name in names},
                max_tiles=self.max_tiles if row.many_tiles else 1,
                system_message="",
            )
        )
        if self.decoder is None:
            self.decoder = model.language_model
        model.language_model = self.decoder
        nn.Module.to(model, self.device, self.dtype).train(False)
        if self.device == "cpu":
            prepare_for_cpu(model)  # as `open_engine` does
        return model

    def wait(self) -> None:
        """Wait until the device is idle."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


class RowRun:
    """A row's model, its token account for the image, and a prompt with the same numbers of tokens."""

    def __init__(self, bench: Bench, row: Row, title: str) -> None:
        self.bench = bench
        self.row = row
        self.method = registry.build(row.method)
        self.model = bench.model(row)
        self.account = self._answer(title)
        num_visual, num_text = self.account.visual_tokens, self.account.text_tokens
        ids = torch.zeros(1, num_visual + num_text, dtype=torch.long)
        # Half of the text comes before the image and half after it.
        ids[:, num_text // 2 : num_text // 2 + num_visual] = bench.image_token_id
        self.input_ids = ids.to(bench.device)
        self.vit_tokens = torch.randn(self.account.tiles, 1025, bench.vision_config.hidden_size).to(
            bench.device, bench.dtype
        )
        self.is_low = torch.zeros(self.account.tiles, dtype=torch.bool, device=bench.device)

    def _answer(self, title: str) -> Any:
        prompting = InternVLPrompting(InternVLSettings.of(self.model.config))
        preprocessor = Preprocessor(self.bench.tokenizer, prompting, resolution=self.method.resolution)
        engine = Engine(self.model, self.bench.tokenizer, preprocessor, [self.method], show_progress=False)
        request = Request(
            key=title,
            messages=(Message("user", (ImageInput(self.bench.picture), Text("What is in the picture?"))),),
            generation=GenerationSettings(max_new_tokens=1),
        )
        return engine.answer([request])[0].account

    def tflop(self) -> float:
        """Return the operations of the decoder's prefill in TFLOP."""
        tokens = [visual + self.account.text_tokens for visual in self.account.visual_tokens_per_layer]
        return prefill_flops(self.bench.text_config, tokens).total / 1e12

    @torch.inference_mode()
    def prefill(self) -> float:
        """Return the seconds of connector, LVTC's projectors and decoder, from vision tokens to the last logits."""
        model = self.model
        # The rows share one decoder.
        model.use_decoder_part(self.method.decoder)
        self.bench.wait()
        start = time.perf_counter()
        visual = model.visual_tokens(self.vit_tokens, self.is_low)
        embeddings = model.embed(self.input_ids, visual.tokens)
        cache = model.prompt_cache(self.input_ids, ["prefill"], self.vit_tokens, visual.counts)
        model.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self.bench.wait()
        seconds = time.perf_counter() - start
        if cache is not None:
            assert cache.visual_tokens_per_layer(0) == self.account.visual_tokens_per_layer
        return seconds


def measure(settings: Settings, rounds: int) -> dict[str, Any]:
    """Measure every row and return the record with counts, operations and times, [rounds]."""
    bench = Bench(settings)
    return {
        **conditions("benchmarks/internvl_x.py", settings.device),
        "size": settings.size,
        "shape": SIZES[settings.size],
        "vision_width": VISION_WIDTHS[settings.size],
        "picture": "x".join(map(str, settings.picture)),
        "max_tiles": settings.max_tiles,
        "dtype": settings.dtype,
        "rounds": rounds,
        "rows": _compare(bench.runs, rounds),
    }


def _compare(runs: dict[str, RowRun], rounds: int) -> dict[str, Any]:
    """Compare every row with Base's times just before and after it."""
    for run in runs.values():  # warm-up, in which kernels are chosen and memory is allocated
        run.prefill()
    others = {title: run.prefill for title, run in runs.items() if title != BASE}
    base_s, row_s = in_turns(runs[BASE].prefill, others, rounds)
    relative = {BASE: np.ones(rounds)}
    for place, title in enumerate(others):
        relative[title] = np.array(row_s[title]) / np.array(neighbours(base_s, place))
    seconds = {BASE: [fmean(base) for base in base_s], **row_s}
    return {title: _entry(runs, title, seconds[title], relative) for title in runs}


def _entry(
    runs: dict[str, RowRun], title: str, seconds: list[float], relative: dict[str, np.ndarray]
) -> dict[str, Any]:
    run = runs[title]
    tflop = run.tflop()
    quartiles = partial(np.quantile, q=[0.25, 0.5, 0.75])
    return {
        "method": run.row.method,
        "tokens_per_tile": run.row.tokens,
        "tiles": run.account.tiles,
        "text_tokens": run.account.text_tokens,
        "visual_tokens_per_layer": list(run.account.visual_tokens_per_layer),
        "mean_visual_tokens": fmean(run.account.visual_tokens_per_layer),
        "tflop": tflop,
        "flops_to_base": tflop / runs[BASE].tflop(),
        "flops_to_base_star": tflop / runs[BASE_STAR].tflop(),
        "seconds": seconds,
        "time_to_base": quartiles(relative[title]).tolist(),
        "time_to_base_star": quartiles(relative[title] / relative[BASE_STAR]).tolist(),
    }


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Cost of InternVL-X's parts",
        "",
        "Rows of the paper's Tables 2 and 4: Base has one tile of 256 visual tokens, Base* one of 1,024; Base-HD,",
        "+RVTC and Full divide one image into tiles. Tokens: the image's tokens in the first and the last layer and",
        "the mean over layers, from the account of an answer. TFLOP: operations of the decoder's prefill",
        "(`vico_eval/bench/flops.py`), without connector and projectors. Time: from vision tokens to the last token's",
        "logits, with connector and projectors but without the vision encoder; the ratio to Base and Base* is the",
        "median (quartiles) over the rounds of one process. Weights are random. Written by",
        "`benchmarks/internvl_x.py`.",
        "",
        "| model | row | tiles | tokens | mean | TFLOP | to Base | to Base* | median time | to Base | to Base* |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for record in records.values():
        for title, row in record["rows"].items():
            layers = row["visual_tokens_per_layer"]
            lines.append(
                f"| Qwen3 {record['size']} | {title} | {row['tiles']} | {layers[0]} to {layers[-1]} "
                f"| {row['mean_visual_tokens']:.0f} | {row['tflop']:.3g} | {row['flops_to_base']:.2f} "
                f"| {row['flops_to_base_star']:.2f} | {np.median(row['seconds']):.3g} s "
                f"| {_ratio(row['time_to_base'])} | {_ratio(row['time_to_base_star'])} |"
            )
    lines += ["", "| record | image | max tiles | processor | rounds | threads | versions | date | command |"]
    lines.append("|:--|:--|--:|:--|--:|--:|:--|:--|:--|")
    for name, record in records.items():
        lines.append(
            f"| [{name}]({name}.json) | {record['picture']} | {record['max_tiles']} | {record['processor']}, "
            f"{record['dtype']} | {made_by(record)} |"
        )
    return "\n".join(lines) + "\n"


def _ratio(quartiles: list[float]) -> str:
    low, median, high = quartiles
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return one line per row."""
    return [
        f"{title:<12} {row['mean_visual_tokens']:>6.0f} tokens  time {_ratio(row['time_to_base'])}  "
        f"operations {row['flops_to_base']:.2f}"
        for title, row in record["rows"].items()
    ]
