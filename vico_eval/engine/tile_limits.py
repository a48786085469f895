"""How many tiles InternVL's authors give an image, by benchmark.

Source: the evaluation scripts of InternVL 2.5 and its settings in VLMEvalKit. The thumbnail is not counted.
"""

from __future__ import annotations

DEFAULT_MAX_TILES = 6

TOTAL_MAX_TILES = 64
"""What VLMEvalKit lets the images of one request share."""

TASK_MAX_TILES: dict[str, int | None] = {
    "chartqa": 12,
    "mmmu": 12,
    "docvqa": 18,
    "infovqa": 24,
    "ocrbench": 24,
    "tiny": None,  # the built-in benchmark draws pictures of up to 12 tiles: the checkpoint's own limit
}
"""By the first words of a task's name: `docvqa` also means `docvqa_val`. None leaves it to the checkpoint."""


def tile_limit(task: str, override: int | None = None) -> int | None:
    """Tiles an image of this task may have, or None for as many as the checkpoint says.

    Args:
        task: its name in lmms-eval or VLMEvalKit, in any case of letters.
        override: the user's own limit, for every task.
    """
    if override is not None:
        return override
    name = task.lower()
    for prefix, limit in TASK_MAX_TILES.items():
        if name == prefix or name.startswith(f"{prefix}_"):
            return limit
    return DEFAULT_MAX_TILES
