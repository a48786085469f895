"""An image under construction: its pixels, and labels of what every cell and every slot shows.

Lengths:
    tile  56 px, one input of the vision encoder
    slot  14 px, one glyph; a tile has 16 slots, as many as high visual tokens
    cell   7 px, one patch of the vision encoder; a slot has 4 cells
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vico_eval.tiny.font import GLYPH_HEIGHT_PX, GLYPH_MASKS, GLYPH_WIDTH_PX, GLYPHS, SLOT_PX

TILE_PX = 56
CELL_PX = 7
SLOTS = TILE_PX // SLOT_PX
"""Slots along one side of a tile."""

COLOURS = {
    "red": (214, 34, 34),
    "orange": (245, 134, 20),
    "yellow": (238, 214, 28),
    "green": (36, 150, 50),
    "cyan": (26, 186, 204),
    "blue": (36, 66, 214),
    "purple": (146, 44, 172),
    "black": (28, 28, 28),
}
COLOUR_NAMES = tuple(COLOURS)
INKS = ("red", "green", "blue", "purple", "black")
"""Colours dark enough for text on a light background."""

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")

_FIRST_SHAPE = 1 + 4 * len(GLYPHS)
_FIRST_BAR = _FIRST_SHAPE + len(SHAPES) * len(COLOURS)
CELL_CLASSES = _FIRST_BAR + len(COLOURS)
"""0: nothing; then a glyph's four quarters, shape and colour, and the colour of a bar."""


def glyph_class(glyph: str, quarter: int) -> int:
    """Return the class of a cell that shows a quarter of a glyph; quarters are numbered by rows from the top left."""
    return 1 + 4 * GLYPHS.index(glyph) + quarter


def shape_class(shape: str, colour: str) -> int:
    """Return the class of the cells that a shape covers."""
    return _FIRST_SHAPE + SHAPES.index(shape) * len(COLOURS) + COLOUR_NAMES.index(colour)


def bar_class(colour: str) -> int:
    """Return the class of the cells that a bar covers."""
    return _FIRST_BAR + COLOUR_NAMES.index(colour)


_GLYPH_CELLS = {glyph: np.array([[glyph_class(glyph, 2 * i + j) for j in (0, 1)] for i in (0, 1)]) for glyph in GLYPHS}


def _shape_mask(shape: str, size: int) -> np.ndarray:
    """Return the mask of a shape that fills a square of `size` px, bool [size, size]."""
    centre = (np.arange(size) + 0.5) / size * 2 - 1  # -1..1
    y, x = centre[:, None], centre[None, :]
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.9
    if shape == "triangle":
        return abs(x) <= (y + 1) / 2
    if shape == "diamond":
        return abs(x) + abs(y) <= 1
    if shape == "cross":
        return np.minimum(abs(x), abs(y)) <= 0.3
    # A star with four thin rays.
    return np.sqrt(abs(x)) + np.sqrt(abs(y)) <= 1.12


_SHAPE_MASKS = {
    (shape, size): _shape_mask(shape, size) for shape in SHAPES for size in (*range(11, 15), *range(24, 29))
}


class NoRoomError(Exception):
    """The canvas has no free place of the requested size."""


class Canvas:
    """Pixels [H, W, 3] with their labels. Everything except the background is placed on the grid of slots.

    Args:
        columns, rows: size in tiles.
        rng: the generator of all random choices.
        background: draw gradients and blobs; a plain colour otherwise.
    """

    def __init__(self, columns: int, rows: int, rng: np.random.Generator, *, background: bool = True) -> None:
        self.rng = rng
        self.columns, self.rows = columns, rows
        self.slot_columns, self.slot_rows = columns * SLOTS, rows * SLOTS
        self.cells = np.zeros((2 * self.slot_rows, 2 * self.slot_columns), np.int16)
        self.glyphs = np.zeros((self.slot_rows, self.slot_columns), np.int16)
        self.busy = np.zeros((self.slot_rows, self.slot_columns), bool)
        self.pixels = np.empty((rows * TILE_PX, columns * TILE_PX, 3), np.uint8)
        self._paint_background(plain=not background)

    def _pastel(self) -> np.ndarray:
        return self.rng.integers(196, 254, 3)

    def _paint_background(self, *, plain: bool) -> None:
        start = self._pastel()
        kind = 0 if plain else int(self.rng.integers(4))
        if kind == 0:
            self.pixels[:] = start
            if plain:
                return
        else:
            stop = self._pastel()
            height, width = self.pixels.shape[:2]
            length = (height, width, height + width)[kind - 1]
            ramp = (start + (stop - start) * np.linspace(0, 1, length)[:, None]).astype(np.uint8)
            if kind == 1:
                self.pixels[:] = ramp[:, None]
            elif kind == 2:
                self.pixels[:] = ramp[None]
            else:
                self.pixels[:] = ramp[np.arange(height)[:, None] + np.arange(width)]
        for _ in range(int(self.rng.integers(3))):
            self._paint_blob()

    def _paint_blob(self) -> None:
        """Paint a large pale ellipse or rectangle, as a distraction without information."""
        height, width = self.pixels.shape[:2]
        y, x = self.rng.integers(0, height), self.rng.integers(0, width)
        half = self.rng.integers(20, 60, 2)
        top, bottom = max(0, y - half[0]), min(height, y + half[0])
        left, right = max(0, x - half[1]), min(width, x + half[1])
        area = self.pixels[top:bottom, left:right]
        colour = self._pastel().astype(np.uint8)
        if self.rng.random() < 0.5:
            area[:] = colour
        else:
            down = (np.arange(top, bottom) - y) / half[0]
            across = (np.arange(left, right) - x) / half[1]
            area[down[:, None] ** 2 + across**2 <= 1] = colour

    def _colour(self, name: str) -> np.ndarray:
        """Return the named colour with a small random shift."""
        return np.clip(np.array(COLOURS[name]) + self.rng.integers(-12, 13, 3), 0, 255).astype(np.uint8)

    def region(self) -> tuple[slice, slice]:
        """Return a random rectangle of slots for detail: at least a tile, usually a small part of the canvas."""
        edges = []
        for slots in (self.slot_rows, self.slot_columns):
            length = int(self.rng.integers(SLOTS, slots + 1, 2).min())
            start = int(self.rng.integers(0, slots - length + 1))
            edges.append(slice(start, start + length))
        return edges[0], edges[1]

    def find(self, height: int, width: int, region: tuple[slice, slice] | None = None) -> tuple[int, int]:
        """Return the top left slot of a random free rectangle of slots.

        Args:
            height, width: in slots.
            region: slots to stay within; the whole canvas by default.

        Raises:
            NoRoomError: no such rectangle is free.
        """
        busy, top, left = self.busy, 0, 0
        if region is not None:
            top, left = region[0].start, region[1].start
            busy = busy[region]
        if height > busy.shape[0] or width > busy.shape[1]:
            raise NoRoomError
        taken = (
            np.lib.stride_tricks.sliding_window_view(busy, (height, width))
            .reshape(busy.shape[0] - height + 1, busy.shape[1] - width + 1, -1)
            .any(axis=-1)
        )
        free = np.flatnonzero(~taken)
        if not len(free):
            raise NoRoomError
        row, column = divmod(int(free[self.rng.integers(len(free))]), taken.shape[1])
        return top + row, left + column

    def text(self, row: int, column: int, text: str, ink: str) -> None:
        """Write `text` to the right from a slot, one glyph per slot, and reserve the slots at both ends."""
        colour = self._colour(ink)
        down, right = (int(shift) for shift in self.rng.integers(0, (3, 5)))
        for offset, glyph in enumerate(text):
            y, x = row * SLOT_PX + down, (column + offset) * SLOT_PX + right
            self.pixels[y : y + GLYPH_HEIGHT_PX, x : x + GLYPH_WIDTH_PX][GLYPH_MASKS[glyph]] = colour
            self.glyphs[row, column + offset] = ord(glyph)
            self.cells[2 * row : 2 * row + 2, 2 * (column + offset) : 2 * (column + offset) + 2] = _GLYPH_CELLS[glyph]
        self.busy[row, max(0, column - 1) : column + len(text) + 1] = True

    def shape(self, row: int, column: int, size: int, shape: str, colour: str) -> None:
        """Draw a shape on `size` x `size` slots (1 or 2) from the given top left slot."""
        self.shape_at_cell(2 * row, 2 * column, size, shape, colour)
        self.busy[row : row + size, column : column + size] = True

    def shape_at_cell(self, row: int, column: int, size: int, shape: str, colour: str) -> None:
        """Draw a shape of `size` slots from a top left *cell*, without reserving its slots."""
        low, high = (11, 15) if size == 1 else (24, 29)
        side = int(self.rng.integers(low, high))
        down, right = self.rng.integers(0, size * SLOT_PX - side + 1, 2)
        y, x = row * CELL_PX + down, column * CELL_PX + right
        self.pixels[y : y + side, x : x + side][_SHAPE_MASKS[shape, side]] = self._colour(colour)
        self.cells[row : row + 2 * size, column : column + 2 * size] = shape_class(shape, colour)

    def bar(self, bottom: int, column: int, width: int, height: int, colour: str) -> None:
        """Draw a bar upwards from the lower edge of slot row `bottom`; `width` in slots, `height` in cells."""
        y = (bottom + 1) * SLOT_PX
        left, right = column * SLOT_PX + 2, (column + width) * SLOT_PX - 2
        self.pixels[y - height * CELL_PX : y, left:right] = self._colour(colour)
        low = 2 * (bottom + 1)
        self.cells[low - height : low, 2 * column : 2 * (column + width)] = bar_class(colour)
        self.busy[bottom + 1 - (height + 1) // 2 : bottom + 1, column : column + width] = True

    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)


def choose(rng: np.random.Generator, items: Sequence[str], count: int) -> list[str]:
    """Return `count` different items in random order."""
    return [items[index] for index in rng.permutation(len(items))[:count]]
