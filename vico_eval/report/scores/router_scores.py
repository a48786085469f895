"""Histograms of router scores over a benchmark's tiles. Lists of millions of scores for twenty rows would not fit in
memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from vico_eval.runs.schema import TokenAccount

NUM_BINS = 40
# Not linspace, whose value for 0.3 is slightly larger, so that a score of 0.3 would fall into the lower bin.
EDGES = np.arange(NUM_BINS + 1) / NUM_BINS
"""Edges of the bins, [NUM_BINS + 1]; a bin includes its lower edge, and the last bin both edges."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ScoreCounts:
    """Number of tiles per bin of scores."""

    tiles: np.ndarray
    """[NUM_BINS], int64, all tiles."""

    compressed: np.ndarray | None
    """[NUM_BINS], int64, compressed tiles; None if an account doesn't identify them."""


def count_scores(accounts: Iterable[TokenAccount]) -> ScoreCounts | None:
    """Count the scores of a benchmark's requests; None unless every request with tiles has scores."""
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
