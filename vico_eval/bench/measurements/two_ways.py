"""Timing the same rows separately and in shared passes, in turns, and checking that the answers are equal."""

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
"""The two ways: each row separately, one after another, or all rows in shared passes."""

STAGES = ("reading", "encoding", "own")
"""The stages of an answer, with the names of `AnswerSeconds`."""


class AnswersDiffer(Exception):
    """A pass gave another answer or account than the separate row, so its time is not comparable."""


class Said(NamedTuple):
    """One answer."""

    what: object
    """The text and account; two answers are equal if these are."""

    seconds: AnswerSeconds


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answers of one way."""

    rows: Mapping[str, Mapping[object, Said]]
    """The answers by row and document."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further counts for the record."""


class Took(NamedTuple):
    """The time of one run."""

    seconds: float
    cpu_seconds: float
    """CPU time of this process and its children, over all cores."""

    load_average: float
    """The machine's load average over the minute before the run."""


def compare(separate: Callable[[], Answered], shared: Callable[[], Answered], rounds: int) -> dict[str, Any]:
    """Measure the times of both ways and their ratios.

    Both run once per round; every other round begins with the pass.

    Args:
        separate: answers row by row.
        shared: answers in passes.
        rounds: number of rounds.

    Returns:
        A part of the record: names of rows, counts, seconds of both, [rounds], and ratios of pass over separate,
        [rounds].

    Raises:
        AnswersDiffer: an answer or account differs between the two.
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
    """Check that a pass gives the same answers as the separate rows.

    Raises:
        AnswersDiffer: rows, documents, answers or accounts differ; the message names the first difference.
    """
    if separate.rows.keys() != shared.rows.keys():
        raise AnswersDiffer(f"separate rows are {', '.join(separate.rows)}, but passes have {', '.join(shared.rows)}.")
    for row, alone in separate.rows.items():
        together = shared.rows[row]
        if alone.keys() != together.keys():
            different = min(alone.keys() ^ together.keys(), key=str)
            raise AnswersDiffer(f"{row}: only one of the two ways answered {different}.")
        for document, said in alone.items():
            if said.what != together[document].what:
                raise AnswersDiffer(
                    f"{row} answers {document} in a pass with {together[document].what}, but separately with "
                    f"{said.what}. Expected equal answers; no record is written."
                )


def encoding_share(record: Mapping[str, Any]) -> float:
    """Return the vision encoder's share of the separate rows' time, median over rounds."""
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
    """Sum each stage over all answers; time shared by several rows counts once."""
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
