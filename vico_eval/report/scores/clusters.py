"""Which of a benchmark's documents say something together: those that share a picture or are scored together.

They are drawn together, so every standard error, interval and test of a report takes these clusters for its sample: a
table, its pictures, its page and its files then never give two answers to how sure a number is.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

SEPARATOR = "\n"
"""Between the digests of a document that was asked in several requests."""


class Clusters(NamedTuple):
    """A benchmark's documents by cluster."""

    numbers: np.ndarray
    """[documents], int from 0, in the order in which clusters first appear."""

    knows_pictures: bool
    """Whether some run says which documents share a picture; otherwise a cluster is what is scored together."""


def clusters_of(units: Sequence[Hashable], media: Iterable[Sequence[str | None]]) -> Clusters:
    """The smallest clusters of which no two share a picture or are scored together.

    Args:
        units: [documents]: those of one label are scored together.
        media: what runs say of the documents' pictures, by run: [documents], digests; empty where a document has
            none, None where the run doesn't say. The first run that says it of every document counts, for all runs
            have the same documents.
    """
    known = next((own for own in media if None not in own), None)
    parents = list(range(len(units)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    firsts: dict[Hashable, int] = {}
    for place, unit in enumerate(units):
        pictures = (known[place] or "").split(SEPARATOR) if known is not None else ()
        # A unit's label may look like a digest, so each has its kind beside it.
        for label in (("unit", unit), *(("picture", picture) for picture in pictures if picture)):
            one, other = root(firsts.setdefault(label, place)), root(place)
            parents[max(one, other)] = min(one, other)
    roots = [root(place) for place in range(len(units))]
    places = {found: number for number, found in enumerate(dict.fromkeys(roots))}
    return Clusters(np.array([places[found] for found in roots], dtype=np.int64), known is not None)
