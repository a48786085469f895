"""Positions of InternVL's visual tokens in their image, and their values from the vision encoder.

A tile's visual tokens are in order of rows or, under `ps_version` v1, of columns, because its pixel shuffle swaps
height and width. Each covers a square of vision tokens, 2 x 2 in an uncompressed tile.

Shapes: tiles = tiles of a request; S = vision tokens along a tile's side; n = visual tokens of the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor


def tokens_of(counts: Tensor) -> Tensor:
    """Return the tile of each token, [n], int64, from the numbers of tokens per tile [tiles]."""
    return torch.arange(len(counts)).repeat_interleave(counts)


def grid_yx(grids: Sequence[tuple[int, int, int]], counts: Tensor, full_side: int, *, swapped: bool) -> Tensor:
    """Return the row and column of each token's centre within its image, [n, 2], float32.

    The unit is a token of an uncompressed tile, with the first token of an image at (0, 0). A thumbnail's tokens cover
    the whole grid.

    Args:
        grids: columns, rows and tiles of each image.
        counts: [tiles], number of tokens of each tile.
        full_side: tokens along the side of an uncompressed tile.
        swapped: whether a tile's tokens are in order of columns.
    """
    found = []
    tile_counts = iter(counts.tolist())
    for columns, rows, tiles in grids:
        for tile in range(tiles):
            row, column = divmod(tile, columns)
            is_thumbnail = tile >= columns * rows
            corner = (0, 0) if is_thumbnail else (row * full_side, column * full_side)
            size = (rows * full_side, columns * full_side) if is_thumbnail else (full_side, full_side)
            found.append(_middles(isqrt(next(tile_counts)), corner, size, swapped))
    return torch.cat(found) if found else torch.zeros(0, 2)


def _middles(side: int, corner: tuple[int, int], size: tuple[int, int], swapped: bool) -> Tensor:
    """Return the centres of side x side squares in a rectangle, [side * side, 2]."""
    y, x = (
        start + (torch.arange(side, dtype=torch.float32) + 0.5) * length / side - 0.5
        for start, length in zip(corner, size, strict=True)
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)  # [rows, columns, 2]
    return (grid.transpose(0, 1) if swapped else grid).reshape(-1, 2)


def of_squares(values: Tensor, counts: Tensor, *, swapped: bool) -> Tensor:
    """Return the mean of vision tokens' values over the square that each visual token covers.

    Args:
        values: [tiles, S * S, ...], row by row.
        counts: [tiles], number of visual tokens of each tile.
        swapped: whether a tile's visual tokens are in order of columns.

    Returns:
        [n, ...], in the order of the visual tokens.
    """
    side = isqrt(values.shape[1])
    of_its_tile = counts.repeat_interleave(counts)
    pooled = values.new_empty(len(of_its_tile), *values.shape[2:])
    for count in counts.unique().tolist():
        small = isqrt(count)
        grid = values[counts == count].unflatten(1, (small, side // small, small, side // small))
        squares = grid.mean(dim=(2, 4))  # [tiles, small, small, ...]
        pooled[of_its_tile == count] = (squares.transpose(1, 2) if swapped else squares).flatten(0, 2)
    return pooled
