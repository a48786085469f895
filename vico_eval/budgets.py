"""Token budgets: the share of visual tokens that a row of a table keeps, and the method argument that sets it.

A share counts the visual tokens that a decoder layer processes, averaged over all layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from vico_eval.errors import ConfigError

ShareArgument = Literal["target_ratio", "tile_keep_ratio", "pixel_keep_ratio", "ratio"]
"""Method argument that sets the budget: the share of visual tokens kept, of tiles kept at full length, of pixels kept,
or of tiles compressed."""

COMPRESSED = 0.25
"""Share of a tile's visual tokens that compression keeps: 64 of 256."""

_COMPRESSING = frozenset({"pool", "random"})
"""Methods whose `ratio` argument is the share of tiles to compress."""


def parse_budgets(text: str, option: str) -> tuple[float, ...]:
    """Parse budgets into shares, largest first: `0.5,0.25`, or token counts such as `192,128,64/576` or
    `192/576,64/256`.

    Raises:
        ConfigError: a budget is not a share in (0, 1), or appears twice.
    """
    parts = [part.strip() for part in text.split(",")]
    _, of, total = parts[-1].partition("/")
    shares = [_share(f"{part}/{total}" if of and _is_count(part) else part, option) for part in parts]
    if len({share_text(share) for share in shares}) < len(shares):
        raise ConfigError(f"{option} got {text!r}, which repeats a share; expected each share once.")
    return tuple(sorted(shares, reverse=True))


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _share(text: str, option: str) -> float:
    tokens, of, total = text.partition("/")
    try:
        share = float(tokens) / (float(total) if of else 1.0)
    except (ValueError, ZeroDivisionError):
        share = math.nan
    if 0 < share < 1:
        return share
    hint = (
        f" An image's token count depends on its tiles, so {text} tokens alone is not a budget. Give the total as "
        "well, as papers do (192,128,64/576 for an image in LLaVA-1.5; 64/256 for each tile in InternVL)."
        if _is_count(text)
        else ""
    )
    raise ConfigError(
        f"{option} got {text!r}; expected shares of the visual tokens between 0 and 1, or kept/total counts, as in "
        f"0.5,0.25 or 192,64/576.{hint}"
    )


def share_text(share: float) -> str:
    """Format a share for a table, such as 50% or 33.3%."""
    return f"{100 * share:.3g}%"


def told(share: float, argument: ShareArgument) -> float:
    """The value of `argument` that gives this share of the visual tokens."""
    return (1 - share) / (1 - COMPRESSED) if argument == "ratio" else share


def asked_share(method: str, arguments: Mapping[str, Any]) -> float | None:
    """The share of visual tokens that a run was asked to keep; None if its arguments set none.

    Args:
        method: the run's method. A combination has no overall share: each part's share applies to what the part before
            kept.
    """
    if "+" in method:
        return None
    # Other programs record their arguments as text.
    known = {name: value for name, value in arguments.items() if isinstance(value, int | float)}
    if method in _COMPRESSING and "ratio" in known:
        return 1 - (1 - COMPRESSED) * float(known["ratio"])
    shares = ("target_ratio", "tile_keep_ratio", "pixel_keep_ratio")
    return next((float(known[name]) for name in shares if name in known), None)
