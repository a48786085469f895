"""Scenes: sizes that tiling keeps, labels that agree with the pixels, answers that follow from what is drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vico_eval.families.internvl.tiling import tile_grid
from vico_eval.tiny.canvas import COLOUR_NAMES, COLOURS, SHAPES, bar_class, glyph_class, shape_class
from vico_eval.tiny.font import GLYPH_MASKS, GLYPHS
from vico_eval.tiny.scenes import CELL_CLASSES, GRIDS, NUM_FRAMES, TASKS, Question, Scene, make_scene

SHAPE_OF_CLASS = {shape_class(shape, colour): (shape, colour) for shape in SHAPES for colour in COLOUR_NAMES}
BAR_OF_CLASS = {bar_class(colour): colour for colour in COLOUR_NAMES}
ALL_GRIDS = [(columns, rows) for columns in range(1, 13) for rows in range(1, 13) if columns * rows <= 12]


def scenes(task: str, count: int = 60) -> list[Scene]:
    rng = np.random.default_rng(7)
    return [make_scene(task, rng) for _ in range(count)]


def words(slots: np.ndarray) -> list[str]:
    """Runs of neighbouring glyphs, row by row."""
    lines = ["".join(chr(value) if value else " " for value in row) for row in slots]
    return " ".join(lines).split()


def single(found: list[str]) -> str:
    assert len(set(found)) == 1, found
    return found[0]


def shapes_in(cells: np.ndarray) -> set[tuple[str, str]]:
    return {SHAPE_OF_CLASS[value] for value in np.unique(cells) if value in SHAPE_OF_CLASS}


def small_shapes(cells: np.ndarray) -> list[tuple[str, str]]:
    """What each slot shows, where no shape is larger than a slot."""
    return [SHAPE_OF_CLASS[value] for value in cells[::2, ::2].ravel().tolist() if value in SHAPE_OF_CLASS]


def bars(scene: Scene) -> list[dict[str, str | int]]:
    """Colour, height in cells, letter below and number above of every bar."""
    (cells,), (slots,) = scene.cells, scene.glyph_slots
    found: list[dict[str, str | int]] = []
    for value, colour in BAR_OF_CLASS.items():
        rows, columns = np.nonzero(cells == value)
        if not len(rows):
            continue
        left, right = columns.min() // 2, columns.max() // 2
        above, below = (rows.min() // 2) - 1, rows.max() // 2 + 1
        number = "".join(chr(glyph) for glyph in slots[above, left : right + 1] if glyph) if above >= 0 else ""
        found.append(
            {
                "colour": colour,
                "height": int(rows.max() - rows.min() + 1),
                "letter": chr(slots[below, left]),
                "number": number,
            }
        )
    return found


def expected(scene: Scene, question: Question) -> str:
    """The answer worked out from the labels, not from how the scene was made."""
    asked = question.text.rstrip("?").split()
    cells, slots = scene.cells[0], scene.glyph_slots[0]
    if question.text.startswith("What is"):
        return single([line[1:].lstrip(":") for line in words(slots) if line[0] == asked[-1]])
    if question.text.startswith("Number on"):
        return single([str(bar["number"]) for bar in bars(scene) if asked[-1] in (bar["colour"], bar["letter"])])
    if question.text.endswith("bar?"):
        ends = max if asked[3] == "tallest" else min
        return str(ends(bars(scene), key=lambda bar: bar["height"])[asked[0].lower()])
    if question.text.startswith("How many"):
        plurals = {shape + ("es" if shape == "cross" else "s"): shape for shape in SHAPES}
        return str(sum(shape == plurals[asked[-1]] for shape, _ in small_shapes(cells)))
    if question.text.startswith("Is there"):
        there = {" ".join(reversed(pair)) for pair in shapes_in(cells)} | set("".join(words(slots)))
        return "yes" if " ".join(asked[3:]) in there else "no"
    if question.text.startswith("Colour of the"):
        return single([colour for image in scene.cells for shape, colour in shapes_in(image) if shape == asked[-1]])
    if question.text.startswith("Colour in image"):
        return single([colour for _, colour in shapes_in(scene.cells[int(asked[-1]) - 1])])
    if question.text.startswith("Number in image"):
        return single(words(scene.glyph_slots[int(asked[-1]) - 1]))
    if question.text.startswith("Larger number"):
        numbers = [int(single(words(image))) for image in scene.glyph_slots]
        return "1" if numbers[0] > numbers[1] else "2"
    if question.text.startswith("More shapes"):
        return "1" if num_shapes(cells) > num_shapes(scene.cells[1]) else "2"
    if question.text == "Same number?":
        return "yes" if len({single(words(image)) for image in scene.glyph_slots}) == 1 else "no"
    if question.text in ("Same shape?", "Same colour?"):
        which = ("Same shape?", "Same colour?").index(question.text)
        (first,), (second,) = shapes_in(cells), shapes_in(scene.cells[1])
        return "yes" if first[which] == second[which] else "no"
    if question.text.startswith("Which way"):
        start, end = (np.argwhere(image).min(axis=0) for image in (scene.cells[0], scene.cells[-1]))
        down, right = end - start
        return {(-1, 0): "up", (1, 0): "down", (0, -1): "left", (0, 1): "right"}[
            int(np.sign(down)), int(np.sign(right))
        ]
    if question.text.startswith("Frames with"):
        return str(sum(asked[-1] in {shape for shape, _ in shapes_in(image)} for image in scene.cells))
    if scene.task == "video":
        shown = words(scene.glyph_slots[0 if asked[0] == "First" else -1])
        return single(shown)
    numbers = [word for word in words(slots) if word.isdigit()]
    if question.text in ("Number?", "First digit?", "Last digit?"):
        return {"Number": single(numbers), "First": numbers[0][0], "Last": numbers[0][-1]}[asked[0]]
    assert question.text.endswith("number?")
    # Ink is no label: the number of the asked colour is the one nearest to it in the picture.
    pixels = np.asarray(scene.images[0]).astype(int)
    return min(numbers, key=lambda number: ink_distance(pixels, slots, number, COLOURS[asked[0]]))


def num_shapes(cells: np.ndarray) -> int:
    """Shapes of one or 2x2 slots; a full 2x2 block of one class counts as one shape."""
    slots, count = cells[::2, ::2].copy(), 0
    for row, column in np.ndindex(slots.shape):
        block = slots[row : row + 2, column : column + 2]
        if not slots[row, column]:
            continue
        count += 1
        if block.size == 4 and (block == slots[row, column]).all():
            block[:] = 0
    return count


def ink_distance(pixels: np.ndarray, slots: np.ndarray, number: str, colour: tuple[int, int, int]) -> float:
    for row, line in enumerate(slots):
        column = "".join(chr(value) if value else " " for value in line).find(number)
        if column >= 0:
            area = pixels[row * 14 : row * 14 + 14, column * 14 : column * 14 + 42].reshape(-1, 3)
            return float(abs(area - np.array(colour)).sum(axis=1).min())
    raise AssertionError(number)


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_follows_from_what_is_drawn(task):
    for scene in scenes(task):
        assert 1 <= len(scene.questions) <= 4
        for question in scene.questions:
            assert question.answer == expected(scene, question), question


@pytest.mark.parametrize("task", TASKS)
def test_labels_fit_the_picture(task):
    for scene in scenes(task, 20):
        assert scene.is_video == (task == "video")
        assert len(scene.images) == {"compare": 2, "video": NUM_FRAMES}.get(task, 1)
        for image, cells, slots in zip(scene.images, scene.cells, scene.glyph_slots, strict=True):
            assert image.mode == "RGB"
            assert cells.dtype == slots.dtype == np.int16
            assert cells.shape == (image.height // 7, image.width // 7)
            assert slots.shape == (image.height // 14, image.width // 14)
            assert cells.max() < CELL_CLASSES
            for row, column in np.argwhere(slots):
                quarters = cells[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel().tolist()
                assert quarters == [glyph_class(chr(slots[row, column]), quarter) for quarter in range(4)]


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_tiling_resizes_no_picture(grid):
    columns, rows = grid
    assert tile_grid(56 * columns, 56 * rows, max_tiles=12, tile_size=56) == grid
    for task in TASKS:
        if task != "video":
            for image in make_scene(task, np.random.default_rng(columns), grid).images:
                assert image.size == (56 * columns, 56 * rows)


def test_a_shape_has_its_colour_in_every_cell_that_names_it():
    # A shape may miss a corner cell, but the colours of its four cells together include its own, 12 levels off at most.
    for scene in scenes("count", 20):
        pixels = np.asarray(scene.images[0]).astype(int)
        for row, column in np.argwhere(scene.cells[0][::2, ::2]):
            colour = SHAPE_OF_CLASS[scene.cells[0][2 * row, 2 * column]][1]
            slot = pixels[14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
            assert abs(slot - np.array(COLOURS[colour])).max(axis=-1).min() <= 12


def test_glyphs_stay_in_their_slots_and_differ():
    assert set(GLYPH_MASKS) == set(GLYPHS)
    assert len({mask.tobytes() for mask in GLYPH_MASKS.values()}) == len(GLYPHS)
    assert {mask.shape for mask in GLYPH_MASKS.values()} == {(12, 10)}


def test_one_seed_gives_one_scene():
    for task in TASKS:
        first, second = (make_scene(task, np.random.default_rng(3)) for _ in range(2))
        assert first.questions == second.questions
        assert [image.tobytes() for image in first.images] == [image.tobytes() for image in second.images]


def test_yes_and_no_are_equally_likely_for_every_question():
    rng = np.random.default_rng(11)
    first_questions = [make_scene(task, rng).questions[0] for task in ("presence", "compare") for _ in range(1200)]
    answers: dict[str, Counter[str]] = {}
    for question in first_questions:
        kind = "Is there" if question.text.startswith("Is there") else question.text
        answers.setdefault(kind, Counter())[question.answer] += 1
    assert set(answers) >= {"Is there", "Same number?", "Same shape?", "Same colour?", "More shapes: 1 or 2?"}
    for kind, counts in answers.items():
        if kind.startswith("Number in"):
            continue
        total = counts.total()
        # Four standard deviations of a fair coin.
        assert abs(counts.most_common(1)[0][1] / total - 0.5) < 2 / total**0.5, (kind, counts)


def test_many_tiles_are_plain():
    plain = total = 0
    for task in TASKS:
        if task == "video":
            continue
        for scene in scenes(task, 30):
            for cells in scene.cells:
                rows, columns = cells.shape[0] // 8, cells.shape[1] // 8
                tiles = cells.reshape(rows, 8, columns, 8).any(axis=(1, 3))
                plain, total = plain + int((~tiles).sum()), total + tiles.size
    assert 0.4 < plain / total < 0.7


@pytest.mark.parametrize(
    ("task", "grid", "message"),
    [("chess", None, "unknown task 'chess'"), ("read", (4, 4), "1 to 12 tiles"), ("video", (2, 1), "is one tile")],
)
def test_an_impossible_scene_is_refused(task, grid, message):
    with pytest.raises(ValueError, match=message):
        make_scene(task, np.random.default_rng(0), grid)


def test_default_grids_have_at_most_twelve_tiles():
    assert all(columns * rows <= 12 for columns, rows in GRIDS)
