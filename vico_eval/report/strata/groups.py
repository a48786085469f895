"""Groups of hard documents, for any benchmark: those that a control loses, and those that no other method answers.

All of them are documents that the baseline answers, so a row that is as good as the baseline but makes other errors
scores less than 100 in each group. Compare rows within a group with each other, and not with the rows that define it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vico_eval.report.stats.measurements import Documents

ANSWERED = 50.0
"""Score, 0-100, from which a document counts as answered; some scores, like VQA's and ANLS, have intermediate
values."""

CONTROLS = ("downsample", "max_pixels", "single_tile")
"""Systems that save tokens by reducing detail uniformly; the documents that they lose need detail."""


class Group(NamedTuple):
    """A group of a benchmark's documents."""

    name: str
    members: np.ndarray
    """[documents], bool."""

    judged: tuple[str, ...]
    """Rows whose scores in the group are meaningful."""


def row_scores(documents: Documents, runs: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Each row's document scores, 0-100, [documents], mean over its runs; rows without scores by document are left out.

    Args:
        documents: a benchmark's documents.
        runs: run numbers by row title.
    """
    found = {}
    for row, numbers in runs.items():
        scored = [documents.runs[number].scored for number in numbers if number in documents.runs]
        known = [np.where(one.strata >= 0, one.scores, np.nan) for one in scored if one is not None]
        if known and len(known) == len(numbers):
            found[row] = np.mean(known, axis=0)
    return found


def hard_groups(scores: Mapping[str, np.ndarray], systems: Mapping[str, str], baseline: str) -> list[Group]:
    """The hard groups of a benchmark's documents; empty if the baseline has no scores by document.

    Args:
        scores: result of `row_scores`, including the baseline's.
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
