"""Scenes of the built-in benchmark: generated images with questions and their answers.

Images are pale gradients and blobs with fine detail on some of their tiles, so most tiles can be compressed without
losing an answer. Sizes are multiples of a tile, so InternVL's tiling doesn't resize them. Answers are balanced within
each kind of question, so that a question's text doesn't predict its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vico_eval.tiny import pictures, sequences
from vico_eval.tiny.canvas import CELL_CLASSES
from vico_eval.tiny.drawing import MAX_QUESTIONS, Drawing, Question
from vico_eval.tiny.sequences import NUM_FRAMES

__all__ = ["CELL_CLASSES", "COMPARE_GRIDS", "GRIDS", "NUM_FRAMES", "TASKS", "Question", "Scene", "make_scene"]

MAX_TILES = 12
"""Maximum number of tiles of an image."""

GRIDS = ((2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2), (2, 3), (4, 2), (2, 4), (3, 3), (4, 3), (3, 4))
"""Columns x rows of tiles that a single picture may have; InternVL's ratio matching gives back each of them."""

COMPARE_GRIDS = ((1, 1), (2, 1), (1, 2), (2, 2), (3, 2))
"""Sizes of the two images of a comparison."""


@dataclass(frozen=True)
class Scene:
    """One or more images, questions about them, and labels of their content."""

    task: str
    images: tuple[Image.Image, ...]
    """RGB, columns*56 x rows*56 px: one, two to compare, or the 56x56 px frames of a video."""

    is_video: bool
    questions: tuple[Question, ...]
    """One to four questions about the same images; the fixed splits use the first."""

    cells: tuple[np.ndarray, ...]
    """Per image, int16 [rows*8, columns*8]: class of each 7 px cell, 0 for nothing, below `CELL_CLASSES`."""

    glyph_slots: tuple[np.ndarray, ...]
    """Per image, int16 [rows*4, columns*4]: byte value of the glyph in each 14 px slot, 0 for none."""


def make_scene(task: str, rng: np.random.Generator, grid: tuple[int, int] | None = None) -> Scene:
    """Draw a random scene of a task; the same generator state gives the same scene.

    Args:
        task: one of `TASKS`.
        rng: the generator of all random choices.
        grid: (columns, rows) of 56 px tiles, at most 12 tiles, of each image; by default a random one of the task's
            sizes. A video frame is always one tile.

    Raises:
        ValueError: the task is unknown, or can't have this grid.
    """
    if task not in _DRAW:
        raise ValueError(f"unknown task {task!r}; expected one of {', '.join(TASKS)}")
    if task == "video":
        sizes: tuple[tuple[int, int], ...] = ((1, 1),)
        if grid not in (None, (1, 1)):
            raise ValueError(f"a video frame is one tile, got grid={grid}")
    else:
        sizes = COMPARE_GRIDS if task == "compare" else GRIDS
    columns, rows = grid if grid is not None else sizes[int(rng.integers(len(sizes)))]
    if columns < 1 or rows < 1 or columns * rows > MAX_TILES:
        raise ValueError(f"got grid={(columns, rows)}; expected 1 to {MAX_TILES} tiles")
    drawing = _DRAW[task](rng, columns, rows)
    return Scene(
        task=task,
        images=tuple(canvas.image() for canvas in drawing.canvases),
        is_video=task == "video",
        questions=tuple(drawing.questions[:MAX_QUESTIONS]),
        cells=tuple(canvas.cells for canvas in drawing.canvases),
        glyph_slots=tuple(canvas.glyphs for canvas in drawing.canvases),
    )


_DRAW: dict[str, Callable[[np.random.Generator, int, int], Drawing]] = {
    "read": pictures.draw_read,
    "doc": pictures.draw_doc,
    "bar": pictures.draw_bar,
    "tallest": pictures.draw_tallest,
    "count": pictures.draw_count,
    "colour": pictures.draw_colour,
    "presence": pictures.draw_presence,
    "compare": sequences.draw_compare,
    "video": sequences.draw_video,
}
TASKS = tuple(_DRAW)
