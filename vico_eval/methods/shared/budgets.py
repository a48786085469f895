"""Token budgets, as arguments of selection methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ModelFacts, SelectionPart
from vico_eval.methods.shared.earlier_run import TargetRatio

DEFAULT_KEEP_RATIO = 0.5


@dataclass(frozen=True, kw_only=True)
class KeepRatio(TargetRatio):
    """Hyper-parameters of a method that keeps a share of the visual tokens; give one of the three."""

    keep_ratio: float | None = None
    """Share of each group's visual tokens that stays, in (0, 1], to the nearest integer and at least one; 0.5
    unless a target is given. A group is a tile, or an image if there are no tiles."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_ratio is not None and self.has_target:
            raise ConfigError("got keep_ratio and target_ratio or ratio_from; give one, because each sets the budget.")
        if self.keep_ratio is not None and not 0 < self.keep_ratio <= 1:
            raise ConfigError(f"got keep_ratio={self.keep_ratio}; expected the share that stays, in (0, 1].")

    def shares(self) -> dict[str, float]:
        """Every requested share of the tokens, keyed by its name in messages."""
        return self.targets() if self.has_target else {f"keep_ratio={self._ratio}": self._ratio}

    @property
    def _ratio(self) -> float:
        return DEFAULT_KEEP_RATIO if self.keep_ratio is None else self.keep_ratio

    def num_keep(self, key: str, sizes: Sequence[int]) -> list[int]:
        """Number of tokens of each group that stay.

        A target is met by the request as a whole, to the nearest token, with at least one token of each group. A
        keep_ratio is met by each group.

        Args:
            key: key of the document.
            sizes: [groups], number of tokens of each.
        """
        target = self.target_of(key)
        if target is not None:
            return apportioned(sizes, target)
        return [num_keep(size, self._ratio) for size in sizes]


def num_keep(num_tokens: int, keep_ratio: float) -> int:
    """Number of a group's tokens that stay: the share to the nearest integer, halves to even, at least 1."""
    return max(1, round(keep_ratio * num_tokens))


def apportioned(sizes: Sequence[int], share: float) -> list[int]:
    """A share of all groups' tokens, rounded once instead of group by group; at least 1 of each group."""
    ends = [round(share * end) for end in accumulate(sizes, initial=0)]
    counts = [max(1, stop - start) for start, stop in pairwise(ends)]
    # Small groups may keep more than their share; the groups that keep most give up the difference.
    for _ in range(sum(counts) - max(ends[-1], len(counts))):
        counts[counts.index(max(counts))] -= 1
    return counts


class BudgetedSelection(SelectionPart):
    """A selection part whose `Config` is a `KeepRatio`."""

    config: KeepRatio

    def check(self, facts: ModelFacts) -> None:
        """Require a budget of at least one token per tile, or one token of the largest image."""
        if facts.tile is not None:
            group, most = "tile", facts.tile.num_tokens
        elif facts.pixels is not None:
            group, most = "image", facts.pixels.max_tokens
        else:
            return
        for name, share in self.config.shares().items():
            if share * most < 1:
                raise ConfigError(
                    f"can't keep {name} of the visual tokens: at least one token of each {group} stays, and "
                    f"{'a tile' if group == 'tile' else 'the largest image'} of {facts.checkpoint!r} has {most}. "
                    f"Expected {1 / most:.4f} to 1."
                )
