"""Planning of passes: a pass is an lmms-eval process that answers several rows with the same weights in lockstep.

In a pass, images are read, tiled and encoded once for all rows; the process then scores each row from its journal. Rows
can share a pass if loading the model and asking documents is the same for all of them. Only their methods differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import yaml

from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.engine.settings import EngineSettings
from vico_eval.files import write_text
from vico_eval.runs.shards import Shard

FOLDER = "passes"
"""Folder of the passes' files, beside the runs."""

PROGRAM = "vico_eval.harnesses.lmms_eval.run_pass"
"""Module that runs such a file; lmms-eval itself would read its tasks again for every row."""

UNKNOWN_DOCUMENTS = 1000
"""Assumed number of documents of benchmarks that don't state it."""

_OF_THE_METHOD = frozenset({"method", "flash_from"})
"""Settings of the engine in which rows of a pass may differ."""

_OF_THE_ROW = frozenset({"model", "model_args", "output_path"})
"""Options of lmms-eval in which they may differ."""

_NUMBERS = {"limit": float}
"""Types of lmms-eval's options that aren't text after parsing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """Runs that one process answers together, in the table's order."""

    runs: tuple[PlannedRun, ...]
    cells: tuple[Cell, ...]
    """The cells that it answers, the same for each run."""

    after: tuple[str, ...] = ()
    """Unfinished runs that it depends on, each in another pass."""

    is_alone: bool = False
    """Whether it is a single run that needs its own process, started by its own command."""

    shard: Shard | None = None
    """Part of the documents that it answers, without a score; None for all."""

    @property
    def name(self) -> str:
        """The name of its first run, the number of others, and the shard."""
        first, *others = self.runs
        of_shard = "" if self.shard is None else f".{self.shard.name}"
        return f"{first.name}+{len(others)}{of_shard}" if others else f"{first.name}{of_shard}"

    @property
    def file(self) -> Path:
        """The file that the program of a pass reads: a YAML list with the options of each run."""
        return self.runs[0].folder.parent / FOLDER / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """The log of its process."""
        return self.runs[0].folder.with_name(f"{self.name}.log")

    @property
    def command(self) -> tuple[str, ...]:
        """The command that answers it, after its file is written."""
        first = self.runs[0]
        if self.is_alone and self.shard is None:  # our own program leaves out the scores
            return first.command(self.cells)
        return (*first.launcher, PROGRAM, "--config", str(self.file))

    @property
    def documents(self) -> int:
        """The number of its answers, as far as it is known."""
        known = (UNKNOWN_DOCUMENTS if cell.documents is None else cell.documents for cell in self.cells)
        return len(self.runs) * sum(known)

    def write(self) -> None:
        """Write its file."""
        self.file.parent.mkdir(exist_ok=True)
        more = {"shared_pass": self.file} if self.shard is None else {"shared_pass": self.file, "shard": self.shard}
        entries = [_typed(run.options(self.cells, **more)) for run in self.runs]
        write_text(self.file, yaml.safe_dump(entries, sort_keys=False))


def plan_passes(
    runs: Sequence[PlannedRun],
    left: Mapping[str, Sequence[Cell]],
    *,
    jobs: int,
    shared: bool = True,
    shard: Shard | None = None,
) -> list[Pass]:
    """Plan as few passes as possible for the unfinished cells of runs, in order of request.

    Passes have no circular dependencies. A run that depends on a finished one doesn't wait.

    Args:
        runs: the runs of a table.
        left: by run, the unfinished cells; a run without any is in no pass.
        jobs: number of processes at once. With several, a run that others wait for is answered first, and waiting runs
            have their own passes, so that none waits longer than necessary.
        shared: let runs share passes.
        shard: the part of the documents to answer.
    """
    sources = {run.name: _source(run, runs, left) for run in runs}
    to_do = sorted((run for run in runs if left[run.name]), key=lambda run: _depth(run.name, sources))
    alike = {
        run.name: (conditions_of(run), [cell.benchmark for cell in left[run.name]]) if shared else run.name
        for run in to_do
    }
    turns = _turns(to_do, alike, sources) if jobs > 1 else {}
    groups: list[_Group] = []
    place: dict[str | None, _Group] = {}
    for run in to_do:
        key = alike[run.name], turns.get(run.name)
        source = place.get(sources[run.name])
        for group in groups:
            if group.alike == key and group.takes(run, source):
                break
        else:
            group = _Group(key)
            groups.append(group)
        group.runs.append(run)
        group.needs += [] if source is None else [source]
        place[run.name] = group
    order = [run.name for run in runs]
    found = [_pass_of(sorted(group.runs, key=lambda run: order.index(run.name)), left, sources) for group in groups]
    return [replace(one, is_alone=not shared, shard=shard) for one in found]


def at_once(passes: Sequence[Pass], jobs: int) -> int:
    """Return how many processes the passes keep busy, at most `jobs`; passes can't run beside those that they wait
    for."""
    place = {run.name: one for one in passes for run in one.runs}

    def depth(one: Pass) -> int:
        return max((1 + depth(place[name]) for name in one.after), default=0)

    return min(jobs, max(Counter(map(depth, passes)).values(), default=1))


def most_work_first(passes: Sequence[Pass]) -> list[Pass]:
    """Sort passes by the number of remaining answers, including those of passes that wait for them, which decides when
    all end."""

    def work(one: Pass) -> int:
        names = {run.name for run in one.runs}
        return one.documents + max((work(other) for other in passes if names & set(other.after)), default=0)

    return sorted(passes, key=work, reverse=True)


def conditions_of(run: PlannedRun) -> dict[str, str]:
    """Return how the model is loaded and documents are asked, by name; the same for all rows of a pass."""
    names = {field.name for field in fields(EngineSettings)} - _OF_THE_METHOD
    told = {name: value for name, value in run.model_args.items() if name in names}
    asked = {name: value for name, value in _typed(run.options(())).items() if name not in (*_OF_THE_ROW, "tasks")}
    started = {"launcher": run.launcher, "environment": dict(run.environment)}
    return {name: str(value) for name, value in {**told, **asked, **started}.items()}


def donors_of(runs: Sequence[PlannedRun]) -> set[object]:
    """Return the checkpoints that supply rows' low connector and router; a process can hold one of them."""
    return {run.model_args["flash_from"] for run in runs if "flash_from" in run.model_args}


@dataclass(eq=False, slots=True)
class _Group:
    """A pass under construction."""

    alike: object
    """The conditions that its runs share."""

    runs: list[PlannedRun] = field(default_factory=list)
    needs: list[_Group] = field(default_factory=list)
    """The groups that its runs depend on."""

    def takes(self, run: PlannedRun, source: _Group | None) -> bool:
        """Return whether a compatible run, which depends on a run of group `source`, may join."""
        if len(donors_of([*self.runs, run])) > 1:
            return False
        return source is None or not source.waits_for(self)

    def waits_for(self, other: _Group) -> bool:
        """Return whether it is that group, or can only start after that group has ended."""
        return self is other or any(needed.waits_for(other) for needed in self.needs)


def _pass_of(runs: Sequence[PlannedRun], left: Mapping[str, Sequence[Cell]], sources: Mapping[str, str | None]) -> Pass:
    after = dict.fromkeys(source for run in runs if (source := sources[run.name]) is not None)
    return Pass(runs=tuple(runs), cells=tuple(left[runs[0].name]), after=tuple(after))


def _source(run: PlannedRun, runs: Sequence[PlannedRun], left: Mapping[str, Sequence[Cell]]) -> str | None:
    """Return the unfinished run that a run has to wait for; a finished one may itself wait for another."""
    after = {other.name: other.after for other in runs}
    source = run.after
    while source is not None and not left[source]:
        source = after[source]
    return source


def _turns(
    runs: Sequence[PlannedRun], alike: Mapping[str, object], sources: Mapping[str, str | None]
) -> dict[str, str]:
    """Return each run's turn, if several processes work at once.

    Runs that others wait for come first, without other runs of the same weights. These join the waiting runs, if there
    are any, so that no pass is added.
    """
    awaited = set(filter(None, sources.values()))
    waiting = [alike[run.name] for run in runs if sources[run.name] is not None]
    first = [alike[run.name] for run in runs if run.name in awaited]
    turns = {}
    for run in runs:
        comes_later = alike[run.name] in first and alike[run.name] in waiting
        if run.name in awaited:
            turns[run.name] = "first"
        else:
            turns[run.name] = "later" if sources[run.name] is not None or comes_later else "any time"
    return turns


def _depth(name: str, sources: Mapping[str, str | None]) -> int:
    source = sources[name]
    return 0 if source is None else 1 + _depth(source, sources)


def _typed(options: Sequence[str]) -> dict[str, object]:
    """Return command-line options as lmms-eval parses them; an option without a value is True."""
    found: dict[str, object] = {}
    for place, word in enumerate(options):
        following = options[place + 1] if place + 1 < len(options) else "--"
        if word.startswith("--"):
            name = word.removeprefix("--")
            found[name] = True if following.startswith("--") else _NUMBERS.get(name, str)(following)
    return found
