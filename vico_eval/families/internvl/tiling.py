"""InternVL's dynamic high resolution: an image is divided into a grid of square tiles, plus a thumbnail.

Source: the preprocessing released with InternVL 1.5 to 3.5. Same grid, same resampling, same order of tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from vico_eval.errors import ConfigError, MediaError

if TYPE_CHECKING:
    from torch import Tensor

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class TiledImage(NamedTuple):
    """The tiles of an image."""

    tiles: np.ndarray
    """[tiles, S, S, 3], uint8: the grid row by row, then the thumbnail if there is one."""

    columns: int
    rows: int
    """Columns and rows of the grid. A tile beyond columns x rows is the thumbnail."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Columns, rows and tiles."""
        return self.columns, self.rows, len(self.tiles)


@lru_cache(maxsize=64)
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    grids = [
        (columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles // columns + 1)
        if columns * rows >= min_tiles
    ]
    return tuple(sorted(grids, key=lambda grid: (grid[0] * grid[1], grid[0])))


def tile_grid(
    width: int, height: int, *, min_tiles: int = 1, max_tiles: int = 12, tile_size: int = 448
) -> tuple[int, int]:
    """Return the grid of `min_tiles` to `max_tiles` tiles with the aspect ratio nearest to the image's.

    Nearest means the smallest absolute difference of width/height. Grids of equal difference (2x1 and 4x2 for a wide
    image) are tried in ascending size, and a larger one is only chosen if the image has more than half its pixels.

    Args:
        width, height: the image's size in pixels, at least 1.
        min_tiles, max_tiles: bounds on columns * rows, without the thumbnail.
        tile_size: side of a tile in pixels.

    Returns:
        (columns, rows).

    Raises:
        MediaError: the image has no pixels.
        ConfigError: the bounds leave no grid.
    """
    _check_pixels(width, height)
    if not 1 <= min_tiles <= max_tiles or tile_size < 1:
        raise ConfigError(
            f"Tiling got min_tiles={min_tiles}, max_tiles={max_tiles}, tile_size={tile_size}; "
            "expected 1 <= min_tiles <= max_tiles and a tile of at least 1 px."
        )
    aspect = width / height
    best, best_difference = (1, 1), float("inf")
    for columns, rows in _grids(min_tiles, max_tiles):
        difference = abs(aspect - columns / rows)
        has_detail = width * height > 0.5 * tile_size * tile_size * columns * rows
        if difference < best_difference or (difference == best_difference and has_detail):
            best, best_difference = (columns, rows), difference
    return best


def tile_image(
    image: Image.Image,
    *,
    max_tiles: int,
    min_tiles: int = 1,
    tile_size: int = 448,
    use_thumbnail: bool = True,
    grid: tuple[int, int] | None = None,
) -> TiledImage:
    """Divide an image into tiles, row by row, followed by its thumbnail if there is more than one tile.

    Args:
        image: any mode; converted to RGB as PIL does (alpha is dropped, not blended).
        max_tiles, min_tiles: bounds on the grid, without the thumbnail.
        tile_size: side S of a tile in pixels.
        use_thumbnail: add the whole image as another tile after several tiles.
        grid: columns and rows, regardless of the aspect ratio; None chooses them within the bounds.

    Raises:
        MediaError: the image has no pixels.
        ConfigError: the bounds leave no grid.
    """
    _check_pixels(*image.size)
    if grid is None:
        grid = tile_grid(*image.size, min_tiles=min_tiles, max_tiles=max_tiles, tile_size=tile_size)
    columns, rows = grid
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    canvas = np.asarray(rgb.resize((columns * tile_size, rows * tile_size), Image.Resampling.BICUBIC))
    cells = canvas.reshape(rows, tile_size, columns, tile_size, 3).swapaxes(1, 2)  # [rows, columns, S, S, 3]
    tiles = cells.reshape(rows * columns, tile_size, tile_size, 3)
    if use_thumbnail and len(tiles) > 1:
        thumbnail = np.asarray(rgb.resize((tile_size, tile_size), Image.Resampling.BICUBIC))
        tiles = np.concatenate([tiles, thumbnail[None]])
    return TiledImage(np.ascontiguousarray(tiles), columns, rows)


def _check_pixels(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise MediaError(f"An image of {width} x {height} px has no pixels; expected at least 1 x 1.")


def normalise(tiles: np.ndarray | Tensor) -> Tensor:
    """Return pixel values for the vision encoder: (tile / 255 - mean) / std per channel.

    Args:
        tiles: [tiles, S, S, 3], uint8, array or tensor on any device.

    Returns:
        [tiles, 3, S, S], float32, on the device of `tiles`.
    """
    import torch  # imported here, so that tiling alone needs only numpy and Pillow

    if isinstance(tiles, np.ndarray):
        # torch warns about read-only arrays, because tensors can't be read-only, so these are copied.
        tiles = torch.from_numpy(tiles if tiles.flags.writeable else tiles.copy())
    mean = torch.tensor(PIXEL_MEAN, device=tiles.device).view(3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=tiles.device).view(3, 1, 1)
    pixels = tiles.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.div_(255).sub_(mean).div_(std)
