"""The speed-up of packing in ViCO's stage 1: samples end to end in one row, instead of one padded row per sample."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from vico_eval.bench.measurements.flash_training import Settings, Step, make_sample
from vico_eval.bench.records import beside_neighbours, conditions, in_turns, records_table
from vico_eval.training.data.batches import MicroBatch, random_share
from vico_eval.training.data.prepare import TrainingSample

PADDED, PACKED = "padded", "packed"


def measure(settings: Settings, num_samples: int, rounds: int) -> dict[str, Any]:
    """Measure positions and seconds of a step, padded and packed, and return the record.

    Args:
        settings: `tiles` and `words` are the maximum of a sample.
        num_samples: number of samples in the micro-batch.
        rounds: number of packed runs, each between two padded ones.
    """
    step = Step(settings, unequal_samples(settings, num_samples))
    padded, packed = (partial(step.padded_or_packed, is_packed=is_packed) for is_packed in (False, True))
    padded(), packed()  # warm-up
    before_and_behind, seconds = in_turns(padded, {PACKED: packed}, rounds)
    return conditions("benchmarks/packing.py", settings.device) | {
        "size": settings.size,
        "dtype": settings.dtype,
        "attention": "sdpa",
        "samples": num_samples,
        "tiles": settings.tiles,
        "words": settings.words,
        "rounds": rounds,
        "positions": positions(step.batch),
        PADDED: {"seconds": before_and_behind},
        PACKED: beside_neighbours(before_and_behind, seconds[PACKED], 0),
    }


def unequal_samples(settings: Settings, num_samples: int) -> list[TrainingSample]:
    """Make samples with 1 to `tiles` tiles and `words` / 2 to `words` words."""
    rng = np.random.default_rng(0)
    tiles = rng.integers(1, settings.tiles + 1, num_samples)
    words = rng.integers(settings.words // 2, settings.words + 1, num_samples)
    return [
        make_sample(own_tiles, own_words, key=f"sample-{number}")
        for number, (own_tiles, own_words) in enumerate(zip(tiles.tolist(), words.tolist(), strict=True))
    ]


def positions(batch: MicroBatch) -> dict[str, int]:
    """Return the number of positions in the policy's rows, with padding and packed."""
    low = random_share(batch, ("bench",))
    counts = torch.where(low, 64, 256)
    ids = batch.lay_out(counts).input_ids
    texts = sum(len(sample.text_ids) for sample in batch.samples)
    return {PADDED: ids.numel(), PACKED: texts + int(counts.sum())}


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Time saved by packing",
        "",
        "A step of ViCO's stage 1 (forward, backward, AdamW; frozen vision encoder, gradient checkpointing) on a",
        "micro-batch whose samples differ in tiles and words, with a random share of low tiles in each. The samples",
        "have one padded row each, or are packed end to end into one row (`data.packed`). Positions are those of the",
        "policy's pass. Speed-up: the padded time before and after, over the packed time; median (quartiles) over",
        "the rounds. Written by `benchmarks/packing.py`.",
        "",
        "| decoder | processor | dtype | attention | samples | positions padded | packed | padded/packed | speed-up |",
        "|:--|:--|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for record in records.values():
        padded, packed = record["positions"][PADDED], record["positions"][PACKED]
        low, high = record[PACKED]["speedup_quartiles"]
        lines.append(
            f"| {record['size']} | {record['processor']} | {record['dtype']} | {record['attention']} "
            f"| {record['samples']} | {padded:,} | {packed:,} | {padded / packed:.2f} "
            f"| {record[PACKED]['speedup']:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join([*lines, "", *records_table(records)]) + "\n"
