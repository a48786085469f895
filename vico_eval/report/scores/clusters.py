"""Cluster a table's documents: those that share an image or are scored together.

Clusters are resampled as a whole. Every standard error, interval and test of a report uses the same clusters, so
tables, figures, page and files never disagree on uncertainty. Two benchmarks may share images, as Video-MME with and
without subtitles does; then clusters span both.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

SEPARATOR = "\n"
"""Separator between the digests of a document with several requests."""


class Together(NamedTuple):
    """The links between a benchmark's documents."""

    units: Sequence[Hashable]
    """[documents]: documents with the same label are scored together."""

    media: Iterable[Sequence[str | None]]
    """By run, [documents]: digests of the documents' images; empty if a document has none, None if unknown. The first
    run that knows all of them is used, since all runs have the same documents."""


def clusters_of(benchmarks: Sequence[Together]) -> list[np.ndarray]:
    """The smallest clusters such that no two share an image or a unit of scoring.

    Returns:
        By benchmark, [documents], int: cluster numbers, from 0 in order of first appearance. The same number in two
        benchmarks is the same cluster.
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
            # A unit's label may equal a digest or another benchmark's label, so labels are tagged with their kind.
            for label in ((number, unit), *(("picture", picture) for picture in pictures if picture)):
                one, other = root(firsts.setdefault(label, place)), root(place)
                parents[max(one, other)] = min(one, other)
    roots = [root(place) for place in range(len(parents))]
    numbers = {found: number for number, found in enumerate(dict.fromkeys(roots))}
    all_documents = np.array([numbers[found] for found in roots], dtype=np.int64)
    return np.split(all_documents, np.cumsum([len(units) for units, _ in benchmarks])[:-1]) if benchmarks else []
