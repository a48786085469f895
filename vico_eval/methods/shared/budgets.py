"""How many tokens stay, as an argument of methods that select them."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class KeepRatio:
    """Hyper-parameters of a method that keeps a share of the visual tokens."""

    keep_ratio: float = 0.5
    """Share of the visual tokens of each tile that stays, in (0, 1]; of an image where there are no tiles. At least one
    token of each stays."""

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise ConfigError(f"got keep_ratio={self.keep_ratio}; expected the share that stays, in (0, 1].")


def num_keep(num_tokens: int, keep_ratio: float) -> int:
    """How many of a group's tokens stay: the share, to the nearest whole number, halves to the even one; at least 1."""
    return max(1, round(keep_ratio * num_tokens))
