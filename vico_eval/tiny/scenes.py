"""Scenes of the built-in benchmark: pictures with questions whose answers are known because we drew them.

Pictures are pale gradients and blobs with fine detail on some of their tiles, so most tiles can be compressed without
losing an answer. Sizes are whole tiles, so InternVL's tiling resizes nothing. Answers are balanced within each kind of
question, and a question's text says nothing about its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vico_eval.tiny.canvas import CELL_CLASSES, COLOUR_NAMES, INKS, SHAPES, Canvas, NoRoomError, choose
from vico_eval.tiny.font import GLYPHS

__all__ = ["CELL_CLASSES", "GRIDS", "NUM_FRAMES", "TASKS", "Question", "Scene", "make_scene"]

DIGITS, LETTERS = GLYPHS[:10], GLYPHS[10:36]
NUM_FRAMES = 8
MAX_TILES = 12
MAX_QUESTIONS = 4

GRIDS = ((2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2), (2, 3), (4, 2), (2, 4), (3, 3), (4, 3), (3, 4))
"""Columns x rows of tiles that a single picture may have; InternVL's ratio matching gives back each of them."""

COMPARE_GRIDS = ((1, 1), (2, 1), (1, 2), (2, 2), (3, 2))
"""Sizes of the two pictures of a comparison."""


@dataclass(frozen=True)
class Question:
    """What is asked, and the one answer that counts."""

    text: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """One or more pictures, questions about them, and what every part of them shows."""

    task: str
    images: tuple[Image.Image, ...]
    """RGB, columns*56 x rows*56 px: one, two to compare, or the 56x56 px frames of a video."""

    is_video: bool
    questions: tuple[Question, ...]
    """One to four about the same pictures; the first is the one that the fixed splits ask."""

    cells: tuple[np.ndarray, ...]
    """Per image, int16 [rows*8, columns*8]: class of each 7 px cell, 0 for nothing, below `CELL_CLASSES`."""

    glyph_slots: tuple[np.ndarray, ...]
    """Per image, int16 [rows*4, columns*4]: byte value of the glyph in each 14 px slot, 0 for none."""


@dataclass(frozen=True)
class _Drawing:
    canvases: list[Canvas]
    questions: list[Question]


def make_scene(task: str, rng: np.random.Generator, grid: tuple[int, int] | None = None) -> Scene:
    """A random scene of one task; the same generator state gives the same scene.

    Args:
        task: one of `TASKS`.
        rng: where every random choice comes from.
        grid: (columns, rows) of 56 px tiles, at most 12 tiles, of each image; by default a random one of the task's
            sizes. A video frame is always one tile.

    Raises:
        ValueError: unknown task, or a grid that the task can't have.
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


def _number(rng: np.random.Generator, digits: int = 3) -> str:
    return "".join(DIGITS[index] for index in rng.integers(0, 10, digits))


def _pick(rng: np.random.Generator, items: tuple[str, ...] | list[str] | str) -> str:
    return items[int(rng.integers(len(items)))]


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.5)


def _shuffled(rng: np.random.Generator, questions: list[Question]) -> list[Question]:
    return [questions[index] for index in rng.permutation(len(questions))]


def _scatter(canvas: Canvas, drawn: list[tuple[str, str]], *, large: float) -> None:
    """Put (shape, colour) pairs into a random region, a share `large` of them two slots wide where there is room."""
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


def _draw_read(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """One or two 3-digit numbers somewhere, now and then with a stray word."""
    canvas = Canvas(columns, rows, rng)
    inks = choose(rng, INKS, 3)
    first = _number(rng)
    row, column = canvas.find(1, 3)
    canvas.text(row, column, first, inks[0])
    if rng.random() < 0.3:
        row, column = canvas.find(1, 3)
        canvas.text(row, column, "".join(choose(rng, LETTERS, 3)), inks[2])
    if _coin(rng):
        questions = [Question("Number?", first), Question("First digit?", first[0]), Question("Last digit?", first[2])]
        return _Drawing([canvas], questions)
    second = _number(rng)
    row, column = canvas.find(1, 3)
    canvas.text(row, column, second, inks[1])
    return _Drawing([canvas], [Question(f"{inks[0]} number?", first), Question(f"{inks[1]} number?", second)])


def _draw_doc(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """Lines of a letter and three digits; a picture one tile wide has no room for the colon between them."""
    canvas = Canvas(columns, rows, rng)
    separator = ":" if columns > 1 else ""
    width = 4 + len(separator)
    pitch = 1 if rows == 1 or _coin(rng) else 2
    num_lines = int(rng.integers(2, min(6, canvas.slot_rows // pitch) + 1))
    top = int(rng.integers(0, canvas.slot_rows - (num_lines - 1) * pitch))
    left = int(rng.integers(0, canvas.slot_columns - width + 1))
    ink = _pick(rng, INKS)
    lines = [(key, _number(rng)) for key in choose(rng, LETTERS, num_lines)]
    for index, (key, value) in enumerate(lines):
        canvas.text(top + index * pitch, left, key + separator + value, ink)
    return _Drawing([canvas], _shuffled(rng, [Question(f"What is {key}?", value) for key, value in lines]))


def _bars(
    canvas: Canvas, num_digits: int, max_bars: int, *, distinct: bool
) -> tuple[list[str], list[str], list[int], list[str]]:
    """Bars side by side with a letter under each and, for `num_digits` > 0, a number on each.

    Returns letters, colours, heights in cells and numbers, from left to right.
    """
    rng = canvas.rng
    width = max(num_digits, 1)
    # One free slot between bars, except where a single tile has no room for two bars then.
    pitch = width + 1 if canvas.columns > 1 or width == 1 else width
    above = 1 if num_digits else 0
    # Slots of height between the numbers' row above and the letters' row below.
    tallest = int(rng.integers(2, min(6, canvas.slot_rows - 1 - above) + 1))
    bottom = int(rng.integers(tallest + above - 1, canvas.slot_rows - 1))
    # Bars of different heights can't be more than there are heights.
    most = min(max_bars, 2 * tallest, (canvas.slot_columns + pitch - width) // pitch)
    num_bars = int(rng.integers(2, most + 1))
    left = int(rng.integers(0, canvas.slot_columns - (num_bars * pitch - (pitch - width)) + 1))
    heights = [
        1 + int(level)
        for level in (rng.permutation(2 * tallest) if distinct else rng.integers(0, 2 * tallest, num_bars))
    ]
    heights = heights[:num_bars]
    letters, colours = choose(rng, LETTERS, num_bars), choose(rng, COLOUR_NAMES, num_bars)
    numbers = [_number(rng, num_digits) for _ in range(num_bars)]
    ink = _pick(rng, INKS)
    for index in range(num_bars):
        column = left + index * pitch
        canvas.bar(bottom, column, width, heights[index], colours[index])
        canvas.text(bottom + 1, column, letters[index], ink)
        if num_digits:
            canvas.text(bottom - (heights[index] + 1) // 2, column, numbers[index], ink)
    return letters, colours, heights, numbers


def _draw_bar(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """Bars with a number on each; asked by colour or by the letter below."""
    canvas = Canvas(columns, rows, rng)
    letters, colours, _, numbers = _bars(canvas, 2, 5, distinct=False)
    questions = []
    for letter, colour, number in zip(letters, colours, numbers, strict=True):
        questions.append(Question(f"Number on {letter if _coin(rng) else colour}?", number))
    return _Drawing([canvas], _shuffled(rng, questions))


def _draw_tallest(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """Bars without numbers, all of different heights; the highest and the lowest are asked for."""
    canvas = Canvas(columns, rows, rng)
    letters, colours, heights, _ = _bars(canvas, 0, 6, distinct=True)
    high, low = int(np.argmax(heights)), int(np.argmin(heights))
    questions = [
        Question("Letter of the tallest bar?", letters[high]),
        Question("Colour of the tallest bar?", colours[high]),
        Question("Letter of the shortest bar?", letters[low]),
        Question("Colour of the shortest bar?", colours[low]),
    ]
    return _Drawing([canvas], _shuffled(rng, questions))


def _plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _draw_count(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """1 to 9 shapes of one kind among a few of another."""
    canvas = Canvas(columns, rows, rng)
    wanted, other = choose(rng, SHAPES, 2)
    num_wanted, num_other = int(rng.integers(1, 10)), int(rng.integers(0, 5))
    kinds = [wanted] * num_wanted + [other] * num_other
    _scatter(canvas, [(kind, _pick(rng, COLOUR_NAMES)) for kind in kinds], large=0.0)
    questions = [Question(f"How many {_plural(wanted)}?", str(num_wanted))]
    if num_other:
        questions.append(Question(f"How many {_plural(other)}?", str(num_other)))
    return _Drawing([canvas], questions)


def _draw_colour(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """Shapes of different kinds; the colour of one is asked."""
    canvas = Canvas(columns, rows, rng)
    drawn = [(shape, _pick(rng, COLOUR_NAMES)) for shape in choose(rng, SHAPES, int(rng.integers(2, 7)))]
    _scatter(canvas, drawn, large=0.4)
    return _Drawing([canvas], _shuffled(rng, [Question(f"Colour of the {shape}?", colour) for shape, colour in drawn]))


def _draw_presence(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """Shapes and single digits; is one of them there?"""
    canvas = Canvas(columns, rows, rng)
    drawn = [(_pick(rng, SHAPES), _pick(rng, COLOUR_NAMES)) for _ in range(int(rng.integers(2, 7)))]
    _scatter(canvas, drawn, large=0.4)
    digits = []
    ink = _pick(rng, INKS)
    for digit in choose(rng, DIGITS, int(rng.integers(1, 4))):
        try:
            row, column = canvas.find(1, 1)
        except NoRoomError:
            break
        canvas.text(row, column, digit, ink)
        digits.append(digit)

    questions = []
    about_digits = digits and rng.random() < 0.3
    for index in range(MAX_QUESTIONS):
        # The first two questions are of one kind, the other two of the other.
        present = _coin(rng)
        if digits and about_digits == (index < 2):
            there = digits if present else [digit for digit in DIGITS if digit not in digits]
            thing = _pick(rng, there)
        else:
            shape, colour = _pair(rng, drawn, present=present)
            thing = f"{colour} {shape}"
        article = "an" if thing[0] in "o8" else "a"
        questions.append(Question(f"Is there {article} {thing}?", "yes" if present else "no"))
    # Two questions may draw the same thing.
    return _Drawing([canvas], list(dict.fromkeys(questions)))


def _pair(rng: np.random.Generator, drawn: list[tuple[str, str]], *, present: bool) -> tuple[str, str]:
    """A (shape, colour) that is there, or one that is not and in half of the cases nearly is."""
    shape, colour = drawn[int(rng.integers(len(drawn)))]
    if present:
        return shape, colour
    change = rng.random()
    while (shape, colour) in drawn:
        if change < 0.75:
            shape = _pick(rng, SHAPES)
        if change > 0.25:
            colour = _pick(rng, COLOUR_NAMES)
    return shape, colour


def _draw_compare(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """Two pictures: the larger number, more shapes, or the same thing in both."""
    canvases = [Canvas(columns, rows, rng) for _ in range(2)]
    if rng.random() < 1 / 3:
        same, second_is_larger = rng.random() < 0.2, _coin(rng)
        small, large = sorted((_number(rng), _number(rng)))
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
            canvas.text(row, column, number, _pick(rng, INKS))
            questions.append(Question(f"Number in image {index + 1}?", number))
        return _Drawing(canvases, questions)
    if _coin(rng):
        counts = choose(rng, "123456789", 2)
        for canvas, count in zip(canvases, counts, strict=True):
            drawn = [(_pick(rng, SHAPES), _pick(rng, COLOUR_NAMES)) for _ in range(int(count))]
            _scatter(canvas, drawn, large=0.2)
        questions = [Question("More shapes: 1 or 2?", "1" if counts[0] > counts[1] else "2")]
        return _Drawing(canvases, questions)
    same_shape, same_colour = _coin(rng), _coin(rng)
    shapes, colours = choose(rng, SHAPES, 2), choose(rng, COLOUR_NAMES, 2)
    pairs = [(shapes[0], colours[0]), (shapes[0 if same_shape else 1], colours[0 if same_colour else 1])]
    for canvas, pair in zip(canvases, pairs, strict=True):
        _scatter(canvas, [pair], large=0.5)
    questions = [
        Question("Same shape?", "yes" if same_shape else "no"),
        Question("Same colour?", "yes" if same_colour else "no"),
        Question("Colour in image 1?", pairs[0][1]),
        Question("Colour in image 2?", pairs[1][1]),
    ]
    return _Drawing(canvases, _shuffled(rng, questions[:2]) + questions[2:])


_DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def _draw_video(rng: np.random.Generator, columns: int, rows: int) -> _Drawing:
    """Eight frames of one tile: something moves, or things appear one after the other."""
    state = int(rng.integers(2**32))
    # Every frame has the same background.
    frames = [Canvas(columns, rows, np.random.default_rng(state)) for _ in range(NUM_FRAMES)]
    colour = _pick(rng, COLOUR_NAMES)
    if _coin(rng):
        return _Drawing(frames, _moving(rng, frames, colour))
    return _Drawing(frames, _appearing(rng, frames))


def _moving(rng: np.random.Generator, frames: list[Canvas], colour: str) -> list[Question]:
    """A shape goes one cell a frame, from edge to edge, and rests in the first or the last frame."""
    shape, direction = _pick(rng, SHAPES), _pick(rng, tuple(_DIRECTIONS))
    across, rest = int(rng.integers(0, 7)), int(rng.integers(2))
    for index, frame in enumerate(frames):
        along = min(index, 6) if rest else max(index - 1, 0)
        down, right = _DIRECTIONS[direction]
        place = along if down + right > 0 else 6 - along
        row, column = (place, across) if down else (across, place)
        frame.shape_at_cell(row, column, 1, shape, colour)
    questions = [Question("Which way does it move?", direction), Question(f"Colour of the {shape}?", colour)]
    return _shuffled(rng, questions)


def _appearing(rng: np.random.Generator, frames: list[Canvas]) -> list[Question]:
    """One digit after another, and a shape in some of the frames."""
    first, last = choose(rng, DIGITS, 2)
    change = int(rng.integers(2, NUM_FRAMES - 1))
    shape, colour = _pick(rng, SHAPES), _pick(rng, COLOUR_NAMES)
    num_shown = int(rng.integers(1, NUM_FRAMES + 1))
    shown = rng.permutation(NUM_FRAMES)[:num_shown]
    ink = _pick(rng, INKS)
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
    return _shuffled(rng, questions)


_DRAW: dict[str, Callable[[np.random.Generator, int, int], _Drawing]] = {
    "read": _draw_read,
    "doc": _draw_doc,
    "bar": _draw_bar,
    "tallest": _draw_tallest,
    "count": _draw_count,
    "colour": _draw_colour,
    "presence": _draw_presence,
    "compare": _draw_compare,
    "video": _draw_video,
}
TASKS = tuple(_DRAW)
