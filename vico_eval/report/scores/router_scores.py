"""A router's scores over all tiles of a benchmark, as counts: a list of millions would not fit beside twenty rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from vico_eval.runs.schema import TokenAccount

NUM_BINS = 40
# Not linspace, whose 0.3 is more than 0.3: such a score would fall into the bin below.
EDGES = np.arange(NUM_BINS + 1) / NUM_BINS
"""Of the scores' bins, [NUM_BINS + 1]; each has its lower edge, the last one both."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ScoreCounts:
    """How many tiles have which score."""

    tiles: np.ndarray
    """[NUM_BINS], int64."""

    compressed: np.ndarray | None
    """[NUM_BINS], int64, those of them that were compressed; None where an account doesn't say which were."""


def count_scores(accounts: Iterable[TokenAccount]) -> ScoreCounts | None:
    """The scores of a benchmark's requests; None unless every request with tiles has them."""
    with_tiles = [account for account in accounts if account.tiles]
    scores = [account.p_compress for account in with_tiles if account.p_compress is not None]
    if not scores or len(scores) < len(with_tiles):
        return None
    low = [_compressed_scores(account) for account in with_tiles]
    known = [own for own in low if own is not None]
    return ScoreCounts(tiles=_histogram(scores), compressed=_histogram(known) if len(known) == len(low) else None)


def _compressed_scores(account: TokenAccount) -> list[float] | None:
    if account.compressed is None:
        return None
    scores = account.p_compress or ()
    return [scores[place] for place in account.compressed if place < len(scores)]


def _histogram(scores: Iterable[Iterable[float]]) -> np.ndarray:
    return np.histogram(np.fromiter(chain.from_iterable(scores), dtype=np.float64), bins=EDGES)[0]
