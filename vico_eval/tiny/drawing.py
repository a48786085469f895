"""Common parts of all scenes: questions, random choices and scattered shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vico_eval.tiny.canvas import Canvas, NoRoomError
from vico_eval.tiny.font import GLYPHS

DIGITS, LETTERS = GLYPHS[:10], GLYPHS[10:36]
MAX_QUESTIONS = 4
"""Maximum number of questions about a scene."""


@dataclass(frozen=True)
class Question:
    """A question and its only correct answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class Drawing:
    """The canvases of a scene and all questions about them, the most important first."""

    canvases: list[Canvas]
    questions: list[Question]


def random_number(rng: np.random.Generator, digits: int = 3) -> str:
    return "".join(DIGITS[index] for index in rng.integers(0, 10, digits))


def pick(rng: np.random.Generator, items: tuple[str, ...] | list[str] | str) -> str:
    return items[int(rng.integers(len(items)))]


def coin(rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.5)


def shuffled(rng: np.random.Generator, questions: list[Question]) -> list[Question]:
    return [questions[index] for index in rng.permutation(len(questions))]


def scatter(canvas: Canvas, drawn: list[tuple[str, str]], *, large: float) -> None:
    """Draw (shape, colour) pairs in a random region, a share `large` of them two slots wide where they fit."""
    region = canvas.region()
    for index, (shape, colour) in enumerate(drawn):
        # Leave a slot for each shape to come; a region has at least 16.
        spare = np.count_nonzero(~canvas.busy[region]) - (len(drawn) - index)
        size = 2 if spare >= 3 and canvas.rng.random() < large else 1
        try:
            row, column = canvas.find(size, size, region)
        except NoRoomError:
            size = 1
            row, column = canvas.find(1, 1, region)
        canvas.shape(row, column, size, shape, colour)
