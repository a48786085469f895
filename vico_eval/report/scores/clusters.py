"""Which documents of a table say something together: those that share a picture or are scored together.

They are drawn together, so every standard error, interval and test of a report takes these clusters for its sample: a
table, its pictures, its page and its files then never give two answers to how sure a number is. Two benchmarks may
share pictures, as Video-MME with and without subtitles does; then clusters reach over both.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

SEPARATOR = "\n"
"""Between the digests of a document that was asked in several requests."""


class Together(NamedTuple):
    """What joins the documents of a benchmark."""

    units: Sequence[Hashable]
    """[documents]: those of one label are scored together."""

    media: Iterable[Sequence[str | None]]
    """What runs say of the documents' pictures, by run: [documents], digests; empty where a document has none, None
    where the run doesn't say. The first run that says it of every document counts, for all runs have the same
    documents."""


def clusters_of(benchmarks: Sequence[Together]) -> list[np.ndarray]:
    """The smallest clusters of which no two share a picture or are scored together.

    Returns:
        By benchmark, [documents], int: numbers of clusters, from 0 in the order in which they first appear. A number
        in two benchmarks is one cluster.
    """
    parents: list[int] = []

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    firsts: dict[Hashable, int] = {}
    for number, (units, media) in enumerate(benchmarks):
        known = next((own for own in media if None not in own), None)
        for document, unit in enumerate(units):
            place = len(parents)
            parents.append(place)
            pictures = (known[document] or "").split(SEPARATOR) if known is not None else ()
            # A unit's label may look like a digest or like another benchmark's, so each has its kind beside it.
            for label in ((number, unit), *(("picture", picture) for picture in pictures if picture)):
                one, other = root(firsts.setdefault(label, place)), root(place)
                parents[max(one, other)] = min(one, other)
    roots = [root(place) for place in range(len(parents))]
    numbers = {found: number for number, found in enumerate(dict.fromkeys(roots))}
    all_documents = np.array([numbers[found] for found in roots], dtype=np.int64)
    return np.split(all_documents, np.cumsum([len(units) for units, _ in benchmarks])[:-1]) if benchmarks else []
