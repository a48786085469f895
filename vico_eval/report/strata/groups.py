"""Groups of hard documents, which every benchmark has: what a control loses, what no other method answers.

All are documents that the baseline answers, so a row that is as good as the baseline but errs elsewhere has less than
100 in each of them. Compare rows within a group with each other, and not with the row or rows that define it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vico_eval.report.stats.measurements import Documents

ANSWERED = 50.0
"""A document's score, of 100, from which it counts as answered; scores as VQA's and ANLS have values between."""

CONTROLS = ("downsample", "max_pixels", "single_tile")
"""Systems that save tokens by taking detail from the picture, wherever it is: what they lose needs detail."""


class Group(NamedTuple):
    """Documents of a benchmark."""

    name: str
    members: np.ndarray
    """[documents], bool."""

    judged: tuple[str, ...]
    """Rows whose scores the group says something of."""


def row_scores(documents: Documents, runs: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Each row's documents by themselves, 0-100, mean over its runs: [documents]; rows without are left out.

    Args:
        documents: of a benchmark.
        runs: by row title, the numbers of its runs of it.
    """
    found = {}
    for row, numbers in runs.items():
        scored = [documents.runs[number].scored for number in numbers if number in documents.runs]
        known = [np.where(one.strata >= 0, one.scores, np.nan) for one in scored if one is not None]
        if known and len(known) == len(numbers):
            found[row] = np.mean(known, axis=0)
    return found


def hard_groups(scores: Mapping[str, np.ndarray], systems: Mapping[str, str], baseline: str) -> list[Group]:
    """The groups of a benchmark's documents; none where the baseline has no score by document.

    Args:
        scores: of `row_scores`, the baseline's among them.
        systems: each row's system by row title.
        baseline: the row that counts as 100%.
    """
    if baseline not in scores:
        return []
    answered = {row: own >= ANSWERED for row, own in scores.items()}
    own = answered[baseline]
    others = [row for row in scores if row != baseline]
    groups = []
    for control in (row for row in others if systems[row] in CONTROLS):
        judged = tuple(row for row in others if row != control)
        groups += [
            Group(f"lost by {control}", own & ~answered[control], judged),
            Group(f"kept by {control}", own & answered[control], judged),
        ]
    methods = [row for row in others if systems[row] not in CONTROLS]
    if len(methods) > 1:
        for row in methods:
            lost = np.all([~answered[other] for other in methods if other != row], axis=0)
            groups.append(Group("lost by all other methods", own & lost, (row,)))
    if others:
        groups.append(
            Group(f"answered by {baseline} only", own & ~np.any([answered[row] for row in others], axis=0), ())
        )
    return groups
