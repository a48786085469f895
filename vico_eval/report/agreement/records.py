"""Differences between the records of two runs, which may explain why answers differ."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from vico_eval.runs.results import Run
from vico_eval.runs.schema import RunRecord

UNKNOWN = "not known"
NONE = "none"

_SAID_ELSEWHERE = frozenset(
    {"version", "title", "command", "started", "continued", "made_from", "previews", "answered_with"}
)
"""Fields that differ between any two runs and don't affect answers."""

_PLACES = frozenset({"path", "record_dir", "previews"})
"""Keys whose values are folders."""


class RecordDifference(NamedTuple):
    """A condition and its different values in two runs."""

    name: str
    first: str
    second: str


def record_differences(first: Run, second: Run) -> list[RecordDifference]:
    """The conditions that differ, from the runs' records and the settings of their common tasks.

    A missing value is shown as `not known` if another program started the run, and as `none` for our own runs.
    """
    shared = first.tasks.keys() & second.tasks.keys()
    ours, theirs = (_conditions(run, shared) for run in (first, second))
    found = []
    for name in dict.fromkeys((*ours, *theirs)):
        own, other = (_text(said.get(name), run.record) for said, run in ((ours, first), (theirs, second)))
        if own != other:
            found.append(RecordDifference(name, own, other))
    return found


def _conditions(run: Run, tasks: Collection[str]) -> dict[str, Any]:
    fields = run.record.model_dump(mode="json", exclude=set(_SAID_ELSEWHERE))
    fields["settings"] = run.record.all_settings
    for name in ("data_sets", "scorers", "left_out_until"):
        fields[name] = {task: value for task, value in fields[name].items() if task in tasks}
    own = {name: {"version": task.version, **task.settings} for name, task in run.tasks.items() if name in tasks}
    return dict(_flat("", {**fields, "tasks": own}))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, own in value.items():
            if name not in _PLACES:
                yield from _flat(f"{prefix}.{name}" if prefix else str(name), own)
    else:
        yield prefix, value


def _text(value: Any, record: RunRecord) -> str:
    if value in (None, "", [], {}):
        return NONE if record.made_from is None else UNKNOWN
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
