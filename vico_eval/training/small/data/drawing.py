"""Drawing a step's random documents on demand.

A batch is a pure function of the recipe's seed, a stage's name and a step, so that a stage can be repeated, or resumed
at any step.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from vico_eval.tiny.scenes import COMPARE_GRIDS, GRIDS, TASKS, Question, Scene, make_scene
from vico_eval.training.small.data.batches import Batch, collate
from vico_eval.training.small.data.documents import DocumentMaker, TokenizedDocument

IMAGE_TASKS = tuple(task for task in TASKS if task not in ("compare", "video"))
LOOKUP = ("read", "doc", "colour")
"""Single-step tasks: locate what the question names; the answer is what stands beside it or how it looks."""

SMALL_GRID = 3
"""The maximum number of tiles, without the thumbnail, of a small image."""


def step_rng(seed: int, stage: str, step: int) -> np.random.Generator:
    """Return the random generator of one step of one stage, independent of earlier steps."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def make_batch(
    rng: np.random.Generator,
    make: DocumentMaker,
    *,
    num_tokens: int,
    max_questions: int,
    lookup_only: bool = False,
) -> Batch:
    """Draw random documents with the same number of tiles, up to `num_tokens` decoder tokens including padding.

    The batch has at least one document, whatever its length.
    """
    kind = "image" if lookup_only else str(rng.choice(["image", "compare", "video"], p=[0.7, 0.15, 0.15]))
    tasks = LOOKUP if lookup_only else IMAGE_TASKS if kind == "image" else (kind,)
    sizes: Sequence[tuple[int, int]] = COMPARE_GRIDS if kind == "compare" else GRIDS
    if lookup_only:
        sizes = [grid for grid in sizes if grid[0] * grid[1] <= SMALL_GRID]
    columns, rows = sizes[int(rng.integers(len(sizes)))]
    grids = [grid for grid in sizes if grid[0] * grid[1] == columns * rows]
    documents: list[TokenizedDocument] = []
    longest = 0
    while True:
        task = str(rng.choice(tasks))
        scene = make_scene(task, rng, None if kind == "video" else grids[int(rng.integers(len(grids)))])
        document = make(scene, choose_questions(scene, rng, max_questions))
        length = len(document.input_ids) + (make.config.num_high_tokens - 1) * len(document.tiles)
        longest = max(longest, length)
        if documents and longest * (len(documents) + 1) > num_tokens:
            return collate(documents, make.tokenizer)
        documents.append(document)


def choose_questions(scene: Scene, rng: np.random.Generator, max_questions: int) -> list[Question]:
    """Draw up to `max_questions` of a scene's questions, always including the first, which the fixed splits ask."""
    others = rng.permutation(len(scene.questions) - 1)[: max_questions - 1]
    return [scene.questions[0], *(scene.questions[1 + int(i)] for i in others)]
