"""The accepted names of a sample's keys, and the detection of keys that are ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vico_eval.training.data.reading.corrupt import CorruptSample

TURNS = ("conversations", "messages")
"""The name used by InternVL and LLaVA, and the one used by chat templates."""

SPEAKER = ("from", "role")
WORDS = ("value", "content")
IMAGES = ("image", "images", "img")
"""The names used by InternVL and LLaMA-Factory, and an older one."""

VIDEOS = ("video", "videos")
SYSTEM = "system"
CLIP, START, END = "clip", "start", "end"
_OF_A_VIDEO = {CLIP, START, END}
_OF_ANY = {SYSTEM, "length", "width", "height", "width_list", "height_list"}

_WITHOUT_MEANING = {"id"}
"""Keys in InternVL's own data that its training code ignores too."""


def holds(value: object) -> bool:
    """Whether a value has content; null and empty strings, lists and objects have none."""
    return value is not None and value != "" and value != [] and value != {}


def listed(value: Any) -> list[Any]:
    """Return a key's value as a list: a list unchanged, a single value in a list, and no content as an empty list."""
    if not holds(value):
        return []
    return value if isinstance(value, list) else [value]


def one_of(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the value under whichever of `names` has content; None if none has.

    Raises:
        CorruptSample: two of them have different values.
    """
    given = [name for name in names if holds(record.get(name))]
    if any(listed(record[name]) != listed(record[given[0]]) for name in given[1:]):
        raise CorruptSample("keys", f"it has {' and '.join(given)}, which differ; expected one of them")
    return record[given[0]] if given else None


def unread_keys(line: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a line and of its turns that have content but are ignored."""
    known = _OF_ANY.union(TURNS, IMAGES, VIDEOS, _WITHOUT_MEANING)
    if any(holds(line.get(name)) for name in VIDEOS):
        known |= _OF_A_VIDEO
    yield from (name for name, value in line.items() if name not in known and holds(value))
    for name in TURNS:
        said = line.get(name)
        turns = [turn for turn in said if isinstance(turn, Mapping)] if isinstance(said, list) else []
        names = {key for turn in turns for key, value in turn.items() if holds(value)}
        yield from (f"{name}[].{key}" for key in sorted(names.difference(SPEAKER, WORDS)))


def unread_columns(columns: Sequence[str], read: Sequence[str]) -> list[str]:
    """Return the columns of a data set that are ignored: neither in `read` nor otherwise known."""
    known = _OF_ANY.union(read, _OF_A_VIDEO, _WITHOUT_MEANING)
    return [name for name in columns if name not in known]
