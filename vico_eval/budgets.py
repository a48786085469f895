"""Budgets: shares of the visual tokens that rows of a table are asked to leave, and how their methods are told.

A share counts visual tokens as a layer of the decoder sees them, averaged over its layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from vico_eval.errors import ConfigError

ShareArgument = Literal["target_ratio", "tile_keep_ratio", "pixel_keep_ratio", "ratio"]
"""Argument that tells a method its share: by that of visual tokens, by that of tiles or pixels which stay, or by that
of tiles which are compressed."""

COMPRESSED = 0.25
"""What is left of a tile's visual tokens where tiles are compressed: 64 of 256."""

_COMPRESSING = frozenset({"pool", "random"})
"""Methods whose `ratio` is the share of tiles that they compress."""


def parse_budgets(text: str, option: str) -> tuple[float, ...]:
    """`0.5,0.25` or, in tokens of how many, `192,128,64/576` or `192/576,64/256` as shares, the largest first.

    Raises:
        ConfigError: one of them is no share in (0, 1), or is there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    _, of, total = parts[-1].partition("/")
    shares = [_share(f"{part}/{total}" if of and _is_count(part) else part, option) for part in parts]
    if len({share_text(share) for share in shares}) < len(shares):
        raise ConfigError(f"{option} got {text!r}, which names a share twice; expected each once.")
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
        f" A picture's number of tokens depends on its tiles, so {text} tokens alone are no budget: say of how many, "
        "as papers mean it (192,128,64/576 of LLaVA-1.5's picture; 64/256 of each tile of InternVL)."
        if _is_count(text)
        else ""
    )
    raise ConfigError(
        f"{option} got {text!r}; expected shares of the visual tokens between 0 and 1, or tokens of how many, as in "
        f"0.5,0.25 or 192,64/576.{hint}"
    )


def share_text(share: float) -> str:
    """A share as tables name it, such as 50% or 33.3%."""
    return f"{100 * share:.3g}%"


def told(share: float, argument: ShareArgument) -> float:
    """What a method's argument has to be for this share of the visual tokens."""
    return (1 - share) / (1 - COMPRESSED) if argument == "ratio" else share


def asked_share(method: str, arguments: Mapping[str, Any]) -> float | None:
    """The share of the visual tokens that a run was asked to leave, whoever said it; None where nobody did.

    Args:
        method: the run's. Of a combination there is none: its shares are of what an earlier part left.
        arguments: its hyper-parameters, those that an earlier run measured (`ratio_from`) filled in.
    """
    if "+" in method:
        return None
    # Arguments of other programs are text.
    known = {name: value for name, value in arguments.items() if isinstance(value, int | float)}
    if method in _COMPRESSING and "ratio" in known:
        return 1 - (1 - COMPRESSED) * float(known["ratio"])
    shares = ("target_ratio", "tile_keep_ratio", "pixel_keep_ratio")
    return next((float(known[name]) for name in shares if name in known), None)
