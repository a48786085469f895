"""The number of tiles that InternVL's authors allow per image and per document, by benchmark.

Source: the evaluation scripts of InternVL 2.5 and its settings in VLMEvalKit. The thumbnail is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vico_eval.errors import ConfigError
from vico_eval.families.family import MOST

DEFAULT_MAX_TILES = 6

TASK_MAX_TILES: dict[str, int | None] = {
    "chartqa": 12,
    "mmmu": 12,
    "docvqa": 18,
    "infovqa": 24,
    "ocrbench": 24,
    "tiny": None,  # the built-in benchmark's images have up to 12 tiles, the checkpoint's own limit
}
"""By prefix of a task's name: `docvqa` includes `docvqa_val`. None uses the checkpoint's limit."""

DEFAULT_TOTAL_MAX_TILES = 64
"""VLMEvalKit's limit for all images of a document."""

TASK_TOTAL_MAX_TILES: dict[str, int | None] = {"mmiu": 12}
"""From InternVL's own evaluation script, by prefix of a task's name."""


_GRID = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")


def parse_grid(text: str | int) -> tuple[int, int]:
    """Parse a grid such as `2x2` into columns and rows.

    Raises:
        ConfigError: it isn't a grid, or has more than 4096 tiles.
    """
    found = _GRID.fullmatch(str(text))
    if found is None or len(str(text)) > len(f"{MOST}x{MOST}"):
        raise ConfigError(f"Got tiles={text!r}; expected columns x rows of an image's grid, as in 2x2.")
    columns, rows = int(found[1]), int(found[2])
    if columns * rows > MOST:
        raise ConfigError(f"Got tiles={text}, {columns * rows} tiles per image; expected at most {MOST}.")
    return columns, rows


def tile_limit(task: str, override: int | None = None) -> int | None:
    """Return the maximum number of tiles per image for a task; None uses the checkpoint's.

    Args:
        task: the task's name in lmms-eval or VLMEvalKit, in upper or lower case.
        override: the user's own limit, for every task.
    """
    return override if override is not None else _limit(task, TASK_MAX_TILES, DEFAULT_MAX_TILES)


def total_tile_limit(task: str, override: int | None = None) -> int | None:
    """Return the maximum number of tiles of all images of a document; see `tile_limit`."""
    return override if override is not None else _limit(task, TASK_TOTAL_MAX_TILES, DEFAULT_TOTAL_MAX_TILES)


def _limit(task: str, limits: Mapping[str, int | None], default: int) -> int | None:
    name = task.lower()
    for prefix, limit in limits.items():
        if name == prefix or name.startswith(f"{prefix}_"):
            return limit
    return default
