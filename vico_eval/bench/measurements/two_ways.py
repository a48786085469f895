"""The same rows answered separately and in one pass, in turns: what each took, and whether answers are the same."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from vico_eval.runs.schema import AnswerSeconds

SEPARATE, SHARED = "separate", "shared"
"""Each row by itself, one after the other; all rows in passes."""

STAGES = ("reading", "encoding", "own")
"""Of an answer, as `AnswerSeconds` names them."""


class AnswersDiffer(Exception):
    """A pass gave another answer or account than the row by itself, so its time says nothing."""


class Said(NamedTuple):
    """One answer."""

    what: object
    """Text and account, equal where they are."""

    seconds: AnswerSeconds


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What one way of answering gave."""

    rows: Mapping[str, Mapping[object, Said]]
    """By row, by document."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further counts for the record."""


class Took(NamedTuple):
    """Of one run."""

    seconds: float
    cpu_seconds: float
    """In which this process and those that it started computed, on all cores together."""

    load_average: float
    """Of the machine, over the minute before."""


def compare(separate: Callable[[], Answered], shared: Callable[[], Answered], rounds: int) -> dict[str, Any]:
    """Times of both, and their ratios.

    Both run once a round; every other round begins with the pass.

    Args:
        separate: answers row by row.
        shared: answers in passes.
        rounds: how often both are run.

    Returns:
        Part of a record: names of rows, counts, seconds of both [rounds], and ratios [rounds] of pass over separate.

    Raises:
        AnswersDiffer: an answer or an account of the two is not the same.
    """
    ways = {SEPARATE: separate, SHARED: shared}
    took: dict[str, list[Took]] = {way: [] for way in ways}
    stages: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    answered: dict[str, Answered] = {}
    for number in range(rounds):
        for way in list(ways)[:: -1 if number % 2 else 1]:
            answered[way], own = _timed(ways[way])
            took[way].append(own)
            stages[way].append(_stage_seconds(answered[way]))
        check_equal(answered[SEPARATE], answered[SHARED])
    rows = answered[SEPARATE].rows
    num_answers = sum(map(len, rows.values()))
    return {
        "rounds": rounds,
        "rows": list(rows),
        "documents": max(map(len, rows.values())),
        "equal_answers": num_answers,
        "ratios": _ratios(took, "seconds"),
        "cpu_ratios": _ratios(took, "cpu_seconds"),
    } | {
        way: {name: [getattr(own, name) for own in took[way]] for name in Took._fields}
        | {"stage_s": {name: [of_round[name] for of_round in stages[way]] for name in STAGES}}
        | dict(answered[way].facts)
        for way in ways
    }


def check_equal(separate: Answered, shared: Answered) -> None:
    """See that a pass answers as the rows by themselves do.

    Raises:
        AnswersDiffer: another row or document, answer or account; names the first.
    """
    if separate.rows.keys() != shared.rows.keys():
        raise AnswersDiffer(f"separate rows are {', '.join(separate.rows)}; in passes {', '.join(shared.rows)}.")
    for row, alone in separate.rows.items():
        together = shared.rows[row]
        if alone.keys() != together.keys():
            different = min(alone.keys() ^ together.keys(), key=str)
            raise AnswersDiffer(f"{row}: only one of both ways answered {different}.")
        for document, said in alone.items():
            if said.what != together[document].what:
                raise AnswersDiffer(
                    f"{row} answers {document} in a pass with {together[document].what}, and by itself with "
                    f"{said.what}. Expected the same; no record is written."
                )


def encoding_share(record: Mapping[str, Any]) -> float:
    """How much of the separate rows' time the vision encoder took; median over rounds."""
    of = record[SEPARATE]
    shares = [encoding / seconds for encoding, seconds in zip(of["stage_s"]["encoding"], of["seconds"], strict=True)]
    return float(median(shares))


def _timed(way: Callable[[], Answered]) -> tuple[Answered, Took]:
    load_average = os.getloadavg()[0]
    start, computed = time.perf_counter(), _cpu_seconds()
    answered = way()
    return answered, Took(time.perf_counter() - start, _cpu_seconds() - computed, load_average)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _stage_seconds(answered: Answered) -> dict[str, float]:
    """Sums over all answers; what rows share counts once."""
    seconds = [said.seconds for documents in answered.rows.values() for said in documents.values()]
    return {
        "reading": _sum(one.reading / one.rows for one in seconds),
        "encoding": _sum(one.encoding / one.rows for one in seconds),
        "own": _sum(one.own for one in seconds),
    }


def _sum(seconds: Iterable[float]) -> float:
    return float(sum(seconds))


def _ratios(took: Mapping[str, list[Took]], name: str) -> list[float]:
    return [
        getattr(together, name) / getattr(alone, name)
        for alone, together in zip(took[SEPARATE], took[SHARED], strict=True)
    ]
