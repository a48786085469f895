"""The keys of a sample: under which names each is read, and which of a sample's keys are not read at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vico_eval.training.data.reading.corrupt import CorruptSample

TURNS = ("conversations", "messages")
"""InternVL's and LLaVA's name, and that of chat templates."""

SPEAKER = ("from", "role")
WORDS = ("value", "content")
IMAGES = ("image", "images", "img")
"""InternVL's name, LLaMA-Factory's, and an older one."""

VIDEOS = ("video", "videos")
SYSTEM = "system"
CLIP, START, END = "clip", "start", "end"
_OF_A_VIDEO = {CLIP, START, END}
_OF_ANY = {SYSTEM, "length", "width", "height", "width_list", "height_list"}

_WITHOUT_MEANING = {"id"}
"""What InternVL's own data has and its training code does not read either."""


def holds(value: object) -> bool:
    """Whether a value says anything; null, and words, lists and objects without content don't."""
    return value is not None and value != "" and value != [] and value != {}


def listed(value: Any) -> list[Any]:
    """What a key holds as a list: a list as it is, one thing as a list of it, nothing as an empty list."""
    if not holds(value):
        return []
    return value if isinstance(value, list) else [value]


def one_of(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the one of `names` that holds something; None where none does.

    Raises:
        CorruptSample: two of them hold different values.
    """
    given = [name for name in names if holds(record.get(name))]
    if any(listed(record[name]) != listed(record[given[0]]) for name in given[1:]):
        raise CorruptSample("keys", f"it has {' and '.join(given)}, which differ; expected one of them")
    return record[given[0]] if given else None


def unread_keys(line: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a line, and of its turns, that hold something and that nothing is done with."""
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
    """The columns of a data set that nothing is done with, beside those of `read`."""
    known = _OF_ANY.union(read, _OF_A_VIDEO, _WITHOUT_MEANING)
    return [name for name in columns if name not in known]
