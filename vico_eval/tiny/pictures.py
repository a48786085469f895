"""Scenes with one image: read, doc, bar, tallest, count, colour and presence."""

from __future__ import annotations

import numpy as np

from vico_eval.tiny.canvas import COLOUR_NAMES, INKS, SHAPES, Canvas, NoRoomError, choose
from vico_eval.tiny.drawing import (
    DIGITS,
    LETTERS,
    MAX_QUESTIONS,
    Drawing,
    Question,
    coin,
    pick,
    random_number,
    scatter,
    shuffled,
)


def draw_read(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw one or two 3-digit numbers and, sometimes, a word that is never asked for."""
    canvas = Canvas(columns, rows, rng)
    inks = choose(rng, INKS, 3)
    first = random_number(rng)
    row, column = canvas.find(1, 3)
    canvas.text(row, column, first, inks[0])
    if rng.random() < 0.3:
        row, column = canvas.find(1, 3)
        canvas.text(row, column, "".join(choose(rng, LETTERS, 3)), inks[2])
    if coin(rng):
        questions = [Question("Number?", first), Question("First digit?", first[0]), Question("Last digit?", first[2])]
        return Drawing([canvas], questions)
    second = random_number(rng)
    row, column = canvas.find(1, 3)
    canvas.text(row, column, second, inks[1])
    return Drawing([canvas], [Question(f"{inks[0]} number?", first), Question(f"{inks[1]} number?", second)])


def draw_doc(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw lines of a letter and three digits. An image one tile wide has no room for the colon between them."""
    canvas = Canvas(columns, rows, rng)
    separator = ":" if columns > 1 else ""
    width = 4 + len(separator)
    pitch = 1 if rows == 1 or coin(rng) else 2
    num_lines = int(rng.integers(2, min(6, canvas.slot_rows // pitch) + 1))
    top = int(rng.integers(0, canvas.slot_rows - (num_lines - 1) * pitch))
    left = int(rng.integers(0, canvas.slot_columns - width + 1))
    ink = pick(rng, INKS)
    lines = [(key, random_number(rng)) for key in choose(rng, LETTERS, num_lines)]
    for index, (key, value) in enumerate(lines):
        canvas.text(top + index * pitch, left, key + separator + value, ink)
    return Drawing([canvas], shuffled(rng, [Question(f"What is {key}?", value) for key, value in lines]))


def _bars(
    canvas: Canvas, num_digits: int, max_bars: int, *, distinct: bool
) -> tuple[list[str], list[str], list[int], list[str]]:
    """Draw bars with a letter below each and, for `num_digits` > 0, a number above each.

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
    numbers = [random_number(rng, num_digits) for _ in range(num_bars)]
    ink = pick(rng, INKS)
    for index in range(num_bars):
        column = left + index * pitch
        canvas.bar(bottom, column, width, heights[index], colours[index])
        canvas.text(bottom + 1, column, letters[index], ink)
        if num_digits:
            canvas.text(bottom - (heights[index] + 1) // 2, column, numbers[index], ink)
    return letters, colours, heights, numbers


def draw_bar(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw bars with numbers, which are asked for by the bar's colour or letter."""
    canvas = Canvas(columns, rows, rng)
    letters, colours, _, numbers = _bars(canvas, 2, 5, distinct=False)
    questions = []
    for letter, colour, number in zip(letters, colours, numbers, strict=True):
        questions.append(Question(f"Number on {letter if coin(rng) else colour}?", number))
    return Drawing([canvas], shuffled(rng, questions))


def draw_tallest(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw bars of different heights without numbers; the questions ask for the tallest and the shortest."""
    canvas = Canvas(columns, rows, rng)
    letters, colours, heights, _ = _bars(canvas, 0, 6, distinct=True)
    high, low = int(np.argmax(heights)), int(np.argmin(heights))
    questions = [
        Question("Letter of the tallest bar?", letters[high]),
        Question("Colour of the tallest bar?", colours[high]),
        Question("Letter of the shortest bar?", letters[low]),
        Question("Colour of the shortest bar?", colours[low]),
    ]
    return Drawing([canvas], shuffled(rng, questions))


def _plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def draw_count(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw 1 to 9 shapes of one kind and a few of another."""
    canvas = Canvas(columns, rows, rng)
    wanted, other = choose(rng, SHAPES, 2)
    num_wanted, num_other = int(rng.integers(1, 10)), int(rng.integers(0, 5))
    kinds = [wanted] * num_wanted + [other] * num_other
    scatter(canvas, [(kind, pick(rng, COLOUR_NAMES)) for kind in kinds], large=0.0)
    questions = [Question(f"How many {_plural(wanted)}?", str(num_wanted))]
    if num_other:
        questions.append(Question(f"How many {_plural(other)}?", str(num_other)))
    return Drawing([canvas], questions)


def draw_colour(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw different shapes; the questions ask for their colours."""
    canvas = Canvas(columns, rows, rng)
    drawn = [(shape, pick(rng, COLOUR_NAMES)) for shape in choose(rng, SHAPES, int(rng.integers(2, 7)))]
    scatter(canvas, drawn, large=0.4)
    return Drawing([canvas], shuffled(rng, [Question(f"Colour of the {shape}?", colour) for shape, colour in drawn]))


def draw_presence(rng: np.random.Generator, columns: int, rows: int) -> Drawing:
    """Draw shapes and single digits; the questions ask whether one of them is there."""
    canvas = Canvas(columns, rows, rng)
    drawn = [(pick(rng, SHAPES), pick(rng, COLOUR_NAMES)) for _ in range(int(rng.integers(2, 7)))]
    scatter(canvas, drawn, large=0.4)
    digits = []
    ink = pick(rng, INKS)
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
        present = coin(rng)
        if digits and about_digits == (index < 2):
            there = digits if present else [digit for digit in DIGITS if digit not in digits]
            thing = pick(rng, there)
        else:
            shape, colour = _pair(rng, drawn, present=present)
            thing = f"{colour} {shape}"
        article = "an" if thing[0] in "o8" else "a"
        questions.append(Question(f"Is there {article} {thing}?", "yes" if present else "no"))
    # Two questions may draw the same thing.
    return Drawing([canvas], list(dict.fromkeys(questions)))


def _pair(rng: np.random.Generator, drawn: list[tuple[str, str]], *, present: bool) -> tuple[str, str]:
    """Return a (shape, colour) pair that is shown, or one that is not.

    Half of the latter differ from a pair that is shown in one property only.
    """
    shape, colour = drawn[int(rng.integers(len(drawn)))]
    if present:
        return shape, colour
    change = rng.random()
    while (shape, colour) in drawn:
        if change < 0.75:
            shape = pick(rng, SHAPES)
        if change > 0.25:
            colour = pick(rng, COLOUR_NAMES)
    return shape, colour
