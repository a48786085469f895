"""The cost of ViCO's stage 1: memory of its loss with a large vocabulary, and time relative to plain fine-tuning.

Weights are random but have real shapes, because neither cost depends on the tokens' contents.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers.models.internvl import InternVLVisionConfig

from vico_eval.bench.processes import in_new_process
from vico_eval.bench.random_models import decoder_config
from vico_eval.bench.records import conditions, in_turns, made_by, neighbours
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.tiling import normalise
from vico_eval.training.config import OptimizerSettings
from vico_eval.training.data.batches import collate, fixed_share, random_share
from vico_eval.training.data.prepare import TrainingSample
from vico_eval.training.held_out import SHARES
from vico_eval.training.loop.schedule import make_optimizer
from vico_eval.training.models.losses import compare_answers
from vico_eval.training.models.packed_attention import attend_by_sample
from vico_eval.training.models.pair import Consistency, PolicyAndReference, frozen_copy

VOCABULARY = 151_936
LOSS_WIDTH = 256
"""Width of the hidden states in the memory measurement, small so that logits dominate."""

CHUNK = 128
ANSWERS = (256, 1024, 4096)
VISION: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512},
    "0.6b": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
"""The vision encoder for each supported decoder size; 0.6b has InternViT-300M's shape."""

IMAGE_TOKEN_ID = 7


def loss_memory(answers: int, chunk: int, device: str) -> float:
    """Return the peak MiB of loss and backward pass beyond hidden states and heads; call it in a new process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads = [nn.Linear(LOSS_WIDTH, VOCABULARY, bias=False).to(device) for _ in range(2)]
    hidden = [torch.randn(answers, LOSS_WIDTH, device=device) for _ in range(2)]
    hidden[1].requires_grad_(True)
    heads[1].weight.grad = torch.zeros_like(heads[1].weight)
    before = _peak(device, reset=True)
    compare_answers(hidden[0], heads[0], hidden[1], heads[1], chunk=chunk).kl.sum().backward()
    return (_peak(device) - before) / 2**20


def _peak(device: str, *, reset: bool = False) -> float:
    """Return the peak memory in bytes: on a GPU since the reset, on a CPU since the process began."""
    if device.startswith("cuda"):
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, the sample and the device of a training step."""

    size: str
    """The decoder's size, a name in `VISION`."""

    tiles: int
    words: int
    """Number of text tokens; the last half is the answer."""

    device: str
    dtype: str
    """`float32`, or `bfloat16` with autocast."""


class Step:
    """Steps of stage 1 and of plain fine-tuning of one model, on the same samples."""

    def __init__(self, settings: Settings, samples: Sequence[TrainingSample]) -> None:
        torch.manual_seed(0)
        self.device = settings.device
        is_bfloat16 = settings.dtype == "bfloat16"
        self.autocast = partial(
            torch.autocast, torch.device(self.device).type, dtype=torch.bfloat16, enabled=is_bfloat16
        )
        self.model = VicoInternVL(
            VicoInternVLConfig(
                vision_config=InternVLVisionConfig(**VISION[settings.size], image_size=(448, 448), patch_size=(14, 14)),
                text_config=decoder_config(settings.size),
                image_token_id=IMAGE_TOKEN_ID,
                parts={"low_connector": {}},
            )
        )
        nn.Module.to(self.model, self.device)
        self.model.requires_grad_(False)
        self.reference = frozen_copy(self.model, train_vision=False, dtype=torch.bfloat16 if is_bfloat16 else None)
        for part in (self.model.connector_low, self.model.connector_high, self.model.language_model):
            assert part is not None
            part.requires_grad_(True)
        self.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.pair = PolicyAndReference(self.model, self.reference).train()
        self.optimizer = make_optimizer(self.model.parameters(), OptimizerSettings(steps=1, learning_rate=1e-6))
        self.batch = collate(samples, samples[0]).to(torch.device(self.device))

    def plain(self) -> float:
        """Return the seconds of a plain fine-tuning step, with every tile high."""
        return self._timed(self._cross_entropy)

    def stage_one(self, share: float) -> float:
        """Return the seconds of a stage 1 step with a share of the tiles low."""
        return self._timed(lambda: self.pair(self.batch, [fixed_share(self.batch, share, ("bench",))]).kl.mean())

    def padded_or_packed(self, *, is_packed: bool) -> float:
        """Return the seconds of a stage 1 step with padded or packed samples."""
        return self._timed(partial(self.loss_padded_or_packed, is_packed=is_packed))

    def loss_padded_or_packed(self, *, is_packed: bool) -> torch.Tensor:
        """Return the step's loss, with a random share of low tiles for each sample."""
        for model in (self.model, self.reference):
            model.language_model.set_attn_implementation("sdpa")
            if is_packed:
                attend_by_sample(model)
        batch = replace(self.batch, is_packed=is_packed)
        result: Consistency = self.pair(batch, [random_share(batch, ("bench",))])
        return result.kl.mean()

    def _cross_entropy(self) -> torch.Tensor:
        with torch.no_grad():
            vit_tokens = self.model.encode_tiles(normalise(self.batch.tiles))
        visual = self.model.visual_tokens(vit_tokens, torch.zeros(len(vit_tokens), dtype=torch.bool))
        layout = self.batch.lay_out(visual.counts)
        ids = layout.input_ids.to(self.device)
        hidden = self.model.language_model.model(
            inputs_embeds=self.model.embed(ids, visual.tokens), use_cache=False
        ).last_hidden_state[layout.row, layout.column]
        return F.cross_entropy(self.model.get_output_embeddings()(hidden).float(), ids[layout.row, layout.column + 1])

    def _timed(self, loss: Callable[[], torch.Tensor]) -> float:
        _wait(self.device)
        start = time.perf_counter()
        with self.autocast():
            value = loss()
        value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        _wait(self.device)
        return time.perf_counter() - start


def make_sample(tiles: int, words: int, key: str = "sample") -> TrainingSample:
    """Make a sample with one image, a question, and an answer of half of the words."""
    ids = [IMAGE_TOKEN_ID - 1, IMAGE_TOKEN_ID - 2, *range(10, 10 + words)]
    return TrainingSample(
        key=key,
        tiles=np.random.default_rng(0).integers(0, 256, (tiles, 448, 448, 3), dtype=np.uint8),
        tile_image=np.zeros(tiles, dtype=np.int64),
        tile_medium=np.zeros(tiles, dtype=np.int64),
        text_ids=ids,
        image_positions=[0],
        is_answer=np.arange(len(ids)) >= len(ids) - words // 2,
        image_token_id=IMAGE_TOKEN_ID,
    )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(settings: Settings, rounds: int) -> dict[str, Any]:
    """Measure the memory of the loss and the time of a step, and return the record."""
    return conditions("benchmarks/flash_training.py", settings.device) | {
        "size": settings.size,
        "tiles": settings.tiles,
        "words": settings.words,
        "dtype": settings.dtype,
        "rounds": rounds,
        # Memory comes first, because a new process inherits the peak of its parent.
        "loss_memory": measure_memory(settings.device),
        "step": measure_step(Step(settings, [make_sample(settings.tiles, settings.words)]), rounds),
    }


def measure_memory(device: str) -> list[dict[str, float]]:
    """Measure the peak memory of the loss, each case in a separate process."""
    cases = [(answers, chunk) for answers in ANSWERS for chunk in (CHUNK, answers)]
    found = []
    for answers, chunk in tqdm(cases, desc="memory", unit="case"):
        mib = in_new_process(loss_memory, answers, chunk, device)
        found.append({"answers": answers, "chunk": chunk, "mib": round(mib, 1)})
    return found


def measure_step(step: Step, rounds: int) -> dict[str, Any]:
    """Measure stage 1's time as a multiple of the plain steps before and after it."""
    step.plain()  # warm-up
    others = {f"{share:.2f}": partial(step.stage_one, share) for share in SHARES}
    plain, seconds = in_turns(step.plain, others, rounds)
    ratios = {
        title: [own / around for own, around in zip(values, neighbours(plain, place), strict=True)]
        for place, (title, values) in enumerate(seconds.items())
    }
    return {
        "plain_s": round(float(np.median([value for turn in plain for value in turn])), 3),
        "ratio_by_share": {
            title: {"median": round(float(np.median(own)), 3), "min": round(min(own), 3), "max": round(max(own), 3)}
            for title, own in ratios.items()
        },
        # xi ~ U[0, 1]: the integral over the shares by the trapezoidal rule.
        "ratio": round(float(np.trapezoid([np.median(own) for own in ratios.values()], SHARES)), 3),
    }


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Cost of ViCO's stage 1",
        "",
        "Time of a whole step (forward, backward, AdamW) with a frozen vision encoder and gradient checkpointing, as a",
        "multiple of a plain fine-tuning step on the same sample: median over the rounds, each between two plain",
        "steps. The mean is over xi ~ U[0, 1]. Written by `benchmarks/flash_training.py`.",
        "",
        "| record | tiles | plain step, s | " + " | ".join(f"{100 * share:.0f}% low" for share in SHARES) + " | mean |",
        "|:--|--:|--:|" + "--:|" * (len(SHARES) + 1),
    ]
    for name, record in records.items():
        step = record["step"]
        cells = " | ".join(f"{one['median']:.2f}" for one in step["ratio_by_share"].values())
        lines.append(f"| {name} | {record['tiles']} | {step['plain_s']} | {cells} | **{step['ratio']:.2f}** |")
    lines += [
        "",
        f"Peak memory of the loss at a vocabulary of {VOCABULARY:,}, in MiB beyond hidden states and heads:",
        "",
        f"| record | answer tokens | {CHUNK} at a time | all at once |",
        "|:--|--:|--:|--:|",
    ]
    for name, record in records.items():
        by_case = {(one["answers"], one["chunk"]): one["mib"] for one in record["loss_memory"]}
        lines += [
            f"| {name} | {answers:,} | {by_case[answers, CHUNK]:,.0f} | {by_case[answers, answers]:,.0f} |"
            for answers in ANSWERS
        ]
    lines += [
        "",
        "| record | processor | rounds | threads | versions | date | command |",
        "|:--|:--|--:|--:|:--|:--|:--|",
    ]
    lines += [f"| {name} | {record['processor']} | {made_by(record)} |" for name, record in records.items()]
    return "\n".join(lines) + "\n"
