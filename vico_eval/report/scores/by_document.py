"""Contribution of each document to a benchmark's score, including scores that are not a mean over documents.

F1, pairs of questions, circular accuracy and means over categories are means over strata of ratios of sums,

    score = 100 x mean over strata s of (sum of a_d over s) / (sum of b_d over s),

so a document's influence on the score is (100 / strata) x N (a_d - ratio_s b_d) / (sum of b_d over s). The score plus
the influence is the document's *value*. The mean of the values is the score, and their spread gives, to first order,
the score's sampling error over documents (the infinitesimal jackknife, Efron 1982). For a plain mean, the values are
the documents' scores.
"""

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vico_eval.runs.results import TaskResult

ROTATION = 1_000_000
"""Offset in MMBench's question index for each rotation of the options."""

_MME_CATEGORIES = 14
_LETTER = re.compile(r"\(?([A-D])[).:,]*(?:\s|$)")

# Finer than any difference between scores, and coarser than what the order of summation changes.
_DIGITS = 9


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class DocumentScores:
    """Scores of a benchmark's documents, task by task, in ascending order."""

    scores: np.ndarray
    """[documents], 0-100, the document's own score; NaN if only its unit has a score."""

    values: np.ndarray
    """[documents], with the benchmark's score, 0-100, as mean; NaN if the spread of a stratum is unknown. Scaled for
    resampling of units; `growth` and `grown` rescale them for larger clusters."""

    units: np.ndarray
    """[documents], int: documents with the same number are scored together, like the two questions of a pair."""

    strata: np.ndarray
    """[documents], int: documents with the same number form one of the parts whose sum is the score; -1 for none."""

    points: float
    """Maximum of each part."""


class Terms(NamedTuple):
    """The terms of a benchmark's score, as lists by document."""

    rights: list[float]
    """The documents' own scores, 0-1."""

    numerators: list[float]
    denominators: list[float]
    strata: list[Hashable]
    """Labels of strata; None for documents that don't count."""

    units: list[Hashable] | None = None
    """Labels of units; None if each document is scored by itself."""

    num_strata: int | None = None
    """Number of strata in the whole benchmark; None if strata missing from a limited run don't count."""


def plain(scores: Iterable[float]) -> DocumentScores:
    """Documents of a benchmark whose score is their mean."""
    own = np.array(list(scores), dtype=float)
    units, strata = np.arange(len(own)), np.zeros(len(own), dtype=np.int64)
    return DocumentScores(scores=own, values=own, units=units, strata=strata, points=100.0)


def read_scores(name: str, tasks: Sequence[TaskResult]) -> DocumentScores | None:
    """The scores and values of the documents of `tasks`, by the rule `name` in `READERS`.

    Returns:
        None if a document lacks a field or has other content in it, as in runs of other versions of a task, or if no
        document counts.
    """
    try:
        return from_terms(READERS[name](tasks))
    except (AttributeError, KeyError, OverflowError, StopIteration, TypeError, ValueError):
        return None


def from_terms(terms: Terms) -> DocumentScores | None:
    """Compute the documents' scores and values from the terms; None if no document counts.

    Raises:
        ValueError: a numerator or denominator is not finite.
    """
    strata = _numbers([label for label in terms.strata if label is not None], terms.strata)
    counts = strata >= 0
    if not counts.any():
        return None
    numerators, denominators = (np.where(counts, part, 0.0) for part in (terms.numerators, terms.denominators))
    if not (np.isfinite(numerators).all() and np.isfinite(denominators).all()):
        raise ValueError("a numerator or denominator is not finite")
        # Documents that don't count have terms of 0, so any stratum will do.
    places = np.where(counts, strata, 0)
    summed = np.bincount(places, weights=denominators)
    # Without positives and predicted positives, F1 is 0 in both toolkits.
    per_denominator = np.divide(1.0, summed, out=np.zeros_like(summed), where=summed > 0)
    ratios = np.bincount(places, weights=numerators) * per_denominator
    points = 100 / (terms.num_strata or len(ratios))
    units = np.arange(len(places)) if terms.units is None else _numbers(terms.units, terms.units)
    slopes = points * len(places) * per_denominator * _spread_kept(units, strata)
    influences = slopes[places] * (numerators - ratios[places] * denominators)
    return DocumentScores(
        scores=100 * np.array(terms.rights, dtype=float),
        values=np.round(points * ratios.sum() + influences, _DIGITS),
        units=units,
        strata=strata,
        points=points,
    )


def growth(scored: DocumentScores, clusters: np.ndarray) -> np.ndarray:
    """[documents]: factors by which deviations of values grow if `clusters` are resampled in place of units.

    Args:
        scored: the documents' scores, of any run.
        clusters: [documents], int; a cluster consists of whole units.
    """
    by_unit, by_cluster = (_spread_kept(groups, scored.strata) for groups in (scored.units, clusters))
    return np.asarray(np.where(np.isnan(by_unit), 1.0, by_cluster / by_unit)[scored.strata])


def grown(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """[documents]: values with their deviations from the mean scaled by the factors of `growth`; unchanged if any value
    is unknown, since the mean is then unknown too."""
    if (factors == 1).all() or np.isnan(values).any():
        return values
    mean = values.mean()
    return np.asarray(np.round(mean + factors * (values - mean), _DIGITS))


def _spread_kept(units: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """[strata]: factors that correct the spread lost because a ratio is estimated from few units; NaN for a single
    unit.

    A single stratum gets 1, because the bootstrap corrects for the number of all clusters.
    """
    numbers = [len(np.unique(units[strata == stratum])) for stratum in range(strata.max() + 1)]
    if len(numbers) == 1:
        return np.ones(1)
    kept = np.array([number / (number - 1) if number > 1 else math.nan for number in numbers])
    return np.asarray(np.sqrt(kept))


def _pope(tasks: Sequence[TaskResult]) -> Terms:
    """F1 of each split. As in lmms-eval, a reply that is neither yes nor no is left out of all sums."""
    found = _of_documents(tasks, lambda fields: fields["pope_f1_score"])
    splits = [task.name for task in tasks for _ in task.documents]
    return f1([(field["ground_truth"], field["prediction"]) for field in found], splits)


def _mme(tasks: Sequence[TaskResult]) -> Terms:
    """Accuracy of each category, over questions and over images with two questions each."""
    names = ("mme_perception_score", "mme_cognition_score")
    found = _of_documents(tasks, lambda fields: next(fields[name] for name in names if name in fields))
    categories = [field["category"] for field in found]
    pictures = [(field["category"], field["question_id"]) for field in found]
    return mme([float(field["score"]) for field in found], categories, pictures)


def _mmbench_v11(tasks: Sequence[TaskResult]) -> Terms:
    """Questions with all rotations present; right if all rotations are."""
    found = _of_documents(tasks, lambda fields: fields["mmbench_v11_exact"])
    questions = [field["index"] % ROTATION for field in found]
    asked: dict[int, set[int]] = {}
    for question, field in zip(questions, found, strict=True):
        asked.setdefault(question, set()).add(field["index"])
    is_complete = [len(asked[question]) >= field["options"] for question, field in zip(questions, found, strict=True)]
    return circular([float(field["score"]) for field in found], questions, is_complete)


def _mmbench(tasks: Sequence[TaskResult]) -> Terms:
    """Questions with the unrotated version present; right if all rotations are."""
    found = _of_documents(tasks, lambda fields: fields["gpt_eval_score"])
    asked = {field["index"] for field in found}
    questions = [field["index"] % ROTATION for field in found]
    rights = [float(_letter_of(field) == field["answer"]) for field in found]
    return circular(rights, questions, [question in asked for question in questions])


def _mmiu(tasks: Sequence[TaskResult]) -> Terms:
    """Accuracy of each spatial task."""
    found = _of_documents(tasks, lambda fields: fields["mmiu_macro20"])
    strata = [field["task"] if field["spatial"] else None for field in found]
    return over_documents([float(field["score"]) for field in found], strata)


def _mmmu(tasks: Sequence[TaskResult]) -> Terms:
    """Questions, for which lmms-eval keeps the parsed replies and the reference answer."""
    found = _of_documents(tasks, lambda fields: fields["mmmu_acc"])
    return over_documents([float(_is_right_mmmu(field)) for field in found], [""] * len(found))


def _seed_image(tasks: Sequence[TaskResult]) -> Terms:
    """Questions about images; those about videos don't count."""
    found = _of_documents(tasks, lambda fields: fields["seed_all"])
    about_pictures = _of_documents(tasks, lambda fields: "seed_image" in fields)
    rights = [float(field["pred"].lower().strip() == field["answer"].lower().strip()) for field in found]
    return over_documents(rights, ["" if own else None for own in about_pictures])


def _muirbench(tasks: Sequence[TaskResult]) -> Terms:
    """Questions, for which lmms-eval keeps the reply up to its letter, and the reference answer."""
    found = _of_documents(tasks, lambda fields: fields["muirbench_score_overall"])
    rights = [float(field["pred"].lower().strip() == field["answer"].lower().strip()) for field in found]
    return over_documents(rights, [""] * len(found))


def _qbench2(tasks: Sequence[TaskResult]) -> Terms:
    """Questions, for which lmms-eval keeps the parsed or random letter, and the right one."""
    found = _of_documents(tasks, lambda fields: fields["qbench_acc"])
    return over_documents([float(field["parsed_pred"] == field["answer"]) for field in found], [""] * len(found))


def _hallusion_bench(tasks: Sequence[TaskResult]) -> Terms:
    """The mean of three accuracies over the same questions: per question, per figure and per pair. Sets share no
    figures."""
    found = _of_documents(tasks, lambda fields: fields["hallusion_mean"])
    rights = [float(field["score"]) for field in found]
    return mean_of_groupings(
        rights,
        groupings=[range(len(found)), [field["figure"] for field in found], [field["pair"] for field in found]],
        units=[field["set"] for field in found],
    )


READERS: Mapping[str, Callable[[Sequence[TaskResult]], Terms]] = {
    "hallusion_bench": _hallusion_bench,
    "muirbench": _muirbench,
    "qbench2": _qbench2,
    "pope": _pope,
    "mme": _mme,
    "mmbench": _mmbench,
    "mmbench_v11": _mmbench_v11,
    "mmiu": _mmiu,
    "mmmu": _mmmu,
    "seed_image": _seed_image,
}
"""Rules that compute a score from documents, by their name under `documents` in the catalogue."""

READINGS = frozenset({"mmbench", "mmmu"})
"""Rules for samples that have replies but no correctness. lmms-eval's code for that takes longer to load than a report
takes to write. Usual replies are parsed the same way here, but unusual ones may give a different score."""


def over_documents(rights: list[float], strata: Sequence[Hashable]) -> Terms:
    """Terms of the mean over strata of the mean over their documents."""
    return Terms(rights, rights, [1.0] * len(rights), list(strata))


def over_units(
    rights: list[float],
    strata: Sequence[Hashable],
    units: Sequence[Hashable],
    score: Callable[[list[float]], float],
) -> Terms:
    """Terms of the mean over strata of the mean over units of `score`, which is applied to the rights in a unit."""
    own: dict[Hashable, list[float]] = {}
    for unit, right in zip(units, rights, strict=True):
        own.setdefault(unit, []).append(right)
    scores = {unit: score(rights) for unit, rights in own.items()}
    return Terms(
        rights=rights,
        numerators=[scores[unit] / len(own[unit]) for unit in units],
        denominators=[1 / len(own[unit]) for unit in units],
        strata=list(strata),
        units=list(units),
    )


def mean_of_groupings(rights: list[float], groupings: Sequence[Sequence[Hashable]], units: Sequence[Hashable]) -> Terms:
    """Terms of the mean over groupings of the share of groups whose documents are all right.

    A document is in one group of every grouping, which a ratio of sums over strata can't express. Its numerator is its
    influence on the mean of the ratios plus the mean, so the documents' plain mean is the score, and their spread is
    that of the ratios, including the random number of groups.

    Args:
        rights: [documents], 0-1.
        groupings: labels of the documents' groups, [documents] each.
        units: [documents], labels; the documents of a unit include all documents of their groups.
    """
    numerators = np.zeros(len(rights))
    for labels in groupings:
        terms = over_units(rights, [""] * len(rights), labels, lambda own: float(all(own)))
        weights = np.array(terms.denominators)
        share = sum(terms.numerators) / weights.sum()
        influences = len(rights) / weights.sum() * (np.array(terms.numerators) - share * weights)
        numerators += (share + influences) / len(groupings)
    return Terms(rights, numerators.tolist(), [1.0] * len(rights), [""] * len(rights), list(units))


def f1(outcomes: Sequence[tuple[str, str]], strata: Sequence[Hashable]) -> Terms:
    """Terms of the mean over strata of F1, from pairs of the right answer and the reply, each `yes` or `no`."""
    hits = [2.0 * (outcome == ("yes", "yes")) for outcome in outcomes]
    misses = [float(outcome in (("yes", "no"), ("no", "yes"))) for outcome in outcomes]
    return Terms(
        rights=[float(right == said) for right, said in outcomes],
        numerators=hits,
        denominators=[hit + miss for hit, miss in zip(hits, misses, strict=True)],
        strata=list(strata),
    )


def mme(rights: list[float], categories: Sequence[str], pictures: Sequence[Hashable]) -> Terms:
    """Terms of the mean over MME's categories of the mean of accuracy over questions and accuracy over images."""
    terms = over_units(rights, categories, pictures, lambda own: (sum(own) / len(own) + all(own)) / 2)
    return terms._replace(num_strata=_MME_CATEGORIES)


def circular(rights: list[float], questions: Sequence[int], counts: Sequence[bool]) -> Terms:
    """Terms of the accuracy over the questions that count; a question is right if all its rotations are."""
    strata = ["" if own else None for own in counts]
    return over_units(rights, strata, questions, lambda own: float(all(own)))


def _of_documents(tasks: Sequence[TaskResult], get: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
    return [get(document.fields) for task in tasks for document in task.documents]


def _letter_of(field: Mapping[str, Any]) -> str | None:
    """The option that a reply begins with, or else the only one whose text it contains."""
    reply = field["prediction"].strip()
    if begins := _LETTER.match(reply):
        return begins[1]
    held = [letter for letter in "ABCD" if field[letter] is not None and str(field[letter]).lower() in reply.lower()]
    return held[0] if len(held) == 1 else None


def _is_right_mmmu(field: Mapping[str, Any]) -> bool:
    """True if one of the replies to a question is right.

    Source: MMMU's evaluation script, as in `lmms_eval.tasks.mmmu.utils`.
    """
    right = field["answer"] if isinstance(field["answer"], list) else [field["answer"]]
    if field["question_type"] == "multiple-choice":
        return any(reply in right for reply in field["parsed_pred"])
    wanted = [form for answer in right for form in _forms(answer)]
    return any(_says(part, wanted) for reply in field["parsed_pred"] for part in reply)


def _says(part: str | float, wanted: Sequence[str | float]) -> bool:
    """True if a part of an open reply is a wanted number or contains a wanted text."""
    if isinstance(part, str):
        return any(isinstance(form, str) and form in part for form in wanted)
    return part in wanted


def _forms(answer: str) -> list[str | float]:
    """Search forms of an open question's answer: a number rounded to two digits; a single letter with a space."""
    text = answer.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _numbers(labels: Iterable[Hashable], of: Iterable[Hashable]) -> np.ndarray:
    """[of], int: index of each label in `labels`, in order of appearance; -1 if missing."""
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return np.array([places.get(label, -1) for label in of], dtype=np.int64)
