"""Scenes with several images: two to compare, or the frames of a video."""

from __future__ import annotations

import numpy as np

from vico_eval.tiny.canvas import COLOUR_NAMES, INKS, SHAPES, Canvas, choose
from vico_eval.tiny.drawing import DIGITS, Drawing, Question, coin, pick, random_number, scatter, shuffled

NUM_FRAMES = 8
"""Pictures of a video."""


def draw_compare(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw two images; the questions ask for the larger number, for more shapes, or whether both show the same."""
    canvases = [Canvas(columns, rows, rng) for _ in range(2)]
    if rng.random() < 1 / 3:
        same, second_is_larger = rng.random() < 0.2, coin(rng)
        small, large = sorted((random_number(rng), random_number(rng)))
        if same or small == large:
            numbers = [small, small]
            questions = [Question("Same number?", "yes")]
        else:
            numbers = [small, large] if second_is_larger else [large, small]
            questions = [Question("Larger number: 1 or 2?", "2" if second_is_larger else "1")]
            if rng.random() < 0.25:
                questions.insert(0, Question("Same number?", "no"))
        for index, (canvas, number) in enumerate(zip(canvases, numbers, strict=True)):
            row, column = canvas.find(1, 3)
            canvas.text(row, column, number, pick(rng, INKS))
            questions.append(Question(f"Number in image {index + 1}?", number))
        return Drawing(canvases, questions)
    if coin(rng):
        counts = choose(rng, "123456789", 2)
        for canvas, count in zip(canvases, counts, strict=True):
            drawn = [(pick(rng, SHAPES), pick(rng, COLOUR_NAMES)) for _ in range(int(count))]
            scatter(canvas, drawn, large=0.2)
        questions = [Question("More shapes: 1 or 2?", "1" if counts[0] > counts[1] else "2")]
        return Drawing(canvases, questions)
    same_shape, same_colour = coin(rng), coin(rng)
    shapes, colours = choose(rng, SHAPES, 2), choose(rng, COLOUR_NAMES, 2)
    pairs = [(shapes[0], colours[0]), (shapes[0 if same_shape else 1], colours[0 if same_colour else 1])]
    for canvas, pair in zip(canvases, pairs, strict=True):
        scatter(canvas, [pair], large=0.5)
    questions = [
        Question("Same shape?", "yes" if same_shape else "no"),
        Question("Same colour?", "yes" if same_colour else "no"),
        Question("Colour in image 1?", pairs[0][1]),
        Question("Colour in image 2?", pairs[1][1]),
    ]
    return Drawing(canvases, shuffled(rng, questions[:2]) + questions[2:])


_DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def draw_video(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw eight frames of one tile, in which a shape moves or things appear one after the other."""
    state = int(rng.integers(2**32))
    # Every frame has the same background.
    frames = [Canvas(columns, rows, np.random.default_rng(state)) for _ in range(NUM_FRAMES)]
    colour = pick(rng, COLOUR_NAMES)
    if coin(rng):
        return Drawing(frames, _moving(rng, frames, colour))
    return Drawing(frames, _appearing(rng, frames))


def _moving(rng: np.random.Generator, frames: list[Canvas], colour: str) -> list[Question]:
    """Draw a shape that moves one cell per frame from edge to edge and rests in the first or the last frame."""
    shape, direction = pick(rng, SHAPES), pick(rng, tuple(_DIRECTIONS))
    across, rest = int(rng.integers(0, 7)), int(rng.integers(2))
    for index, frame in enumerate(frames):
        along = min(index, 6) if rest else max(index - 1, 0)
        down, right = _DIRECTIONS[direction]
        place = along if down + right > 0 else 6 - along
        row, column = (place, across) if down else (across, place)
        frame.shape_at_cell(row, column, 1, shape, colour)
    questions = [Question("Which way does it move?", direction), Question(f"Colour of the {shape}?", colour)]
    return shuffled(rng, questions)


def _appearing(rng: np.random.Generator, frames: list[Canvas]) -> list[Question]:
    """Draw one digit after another, and a shape in some of the frames."""
    first, last = choose(rng, DIGITS, 2)
    change = int(rng.integers(2, NUM_FRAMES - 1))
    shape, colour = pick(rng, SHAPES), pick(rng, COLOUR_NAMES)
    num_shown = int(rng.integers(1, NUM_FRAMES + 1))
    shown = rng.permutation(NUM_FRAMES)[:num_shown]
    ink = pick(rng, INKS)
    for index, frame in enumerate(frames):
        row, column = frame.find(1, 1)
        frame.text(row, column, first if index < change else last, ink)
        if index in shown:
            row, column = frame.find(1, 1)
            frame.shape(row, column, 1, shape, colour)
    questions = [
        Question("First digit?", first),
        Question("Last digit?", last),
        Question(f"Frames with a {shape}?", str(num_shown)),
        Question(f"Colour of the {shape}?", colour),
    ]
    return shuffled(rng, questions)
