"""Provenance on the page: facts that all runs share, followed by each run's own."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vico_eval.report.scores.counted import CountedRun
from vico_eval.report.tables.grid import DASH
from vico_eval.runs.schema import Checkpoint, RunRecord


class Fact(NamedTuple):
    """One entry of a run's record."""

    group: str
    name: str
    value: str


class Facts(NamedTuple):
    """Facts under a heading, by group."""

    title: str
    groups: tuple[tuple[str, tuple[Fact, ...]], ...]


def provenance(runs: Sequence[CountedRun], rows: Sequence[str]) -> list[Facts]:
    """Facts from the records of `runs`: first those that all share, then each run's others, in the order of `rows`.

    Facts that no run has are left out. The data and the scorer of a task are in the records of its runs.
    """
    ordered = [run for row in rows for run in runs if run.row == row]
    records = [_unique(_facts(run.record)) for run in ordered]
    if not records:
        return []
    shared = [fact for fact in records[0] if all(fact in own for own in records)]
    named = [_named(place, run, ordered) for place, run in enumerate(ordered)]
    if len(ordered) == 1:
        return [Facts(named[0], _grouped(shared))]
    own = [_grouped(fact for fact in facts if fact not in set(shared)) for facts in records]
    return [Facts("In all rows", _grouped(shared)), *(Facts(*each) for each in zip(named, own, strict=True))]


def _named(place: int, run: CountedRun, runs: Sequence[CountedRun]) -> str:
    repeats = [number for number, other in enumerate(runs) if other.row == run.row]
    return run.row if len(repeats) == 1 else f"{run.row}, run {repeats.index(place) + 1} of {len(repeats)}"


def _grouped(facts: Iterable[Fact]) -> tuple[tuple[str, tuple[Fact, ...]], ...]:
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.group, []).append(fact)
    return tuple((name, tuple(own)) for name, own in groups.items())


def _unique(facts: Iterable[Fact]) -> list[Fact]:
    return list(dict.fromkeys(facts))


def _facts(record: RunRecord) -> Iterator[Fact]:
    yield from _of_checkpoint("Checkpoint", record.checkpoint)
    if record.donor is not None:
        yield from _of_checkpoint("Connector and router from", record.donor)
    yield Fact("Run", "Method", record.method)
    for name, value in (*record.method_args.items(), *record.all_settings.items(), *record.engine.items()):
        if value is not None:
            yield Fact("Run", name, value if isinstance(value, str) else json.dumps(value))
    conditions: dict[str, object] = {"Device": record.device, "Processes": record.num_processes}
    conditions |= {"Dtype": record.dtype}
    conditions |= {"Attention": record.attention, "System message": record.system_instruction}
    conditions |= {"Started": record.started and record.started.isoformat()}
    conditions |= {"Continued": ", ".join(time.isoformat() for time in record.continued) or None}
    for name, said in conditions.items():
        if said is not None:
            yield Fact("Run", name, str(said))
    yield Fact("Run", "Command", shlex.join(record.command) or DASH)
    yield Fact("Versions", "Toolkit", record.harness)
    for name, version in record.versions.items():
        yield Fact("Versions", name, version or DASH)
    for commit in record.commits:
        yield Fact("Versions", "Commit", commit)
    for task, revision in record.data_sets.items():
        yield Fact("Data", task, revision)
    for task, digest in record.scorers.items():
        yield Fact("Scorers", task, digest)


def _of_checkpoint(group: str, checkpoint: Checkpoint) -> Iterator[Fact]:
    yield Fact(group, "Name", checkpoint.name)
    yield Fact(group, "Path", checkpoint.path)
    yield Fact(group, "Digest", checkpoint.sha256 or DASH)
