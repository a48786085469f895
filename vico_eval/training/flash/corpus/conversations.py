"""One sample as a conversation: from a line of InternVL's format, or from a row of a `datasets` data set.

Nothing is opened here: pictures are named, and read when the sample is prepared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from vico_eval.engine.requests import ImageInput, Message, Role, Text, VideoInput
from vico_eval.errors import ConfigError, UserError

Kind = Literal["image", "video"]
Media = str | Path | bytes

_LINE_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}
_ROW_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_MARKS: dict[str, Kind] = {"<image>": "image", "<video>": "video"}


class CorruptSample(UserError):
    """A sample can't be used. `kind` is what it is counted under, the message says what is wrong with it."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What was said, with the pictures still to be read."""

    key: str
    """Names file and line, or data set and row."""

    messages: tuple[Message, ...]
    """An optional system message, then turns; the last two are a user's and the assistant's."""

    max_tiles: int | None = None
    """Tiles that all its images share, each having at least one, thumbnails not counted; None is the checkpoint's."""

    augment: bool = False
    """Whether its tiles are degraded at random."""

    image_sizes: tuple[tuple[int, int], ...] = ()
    """Width and height in pixels of each image as the data states them; empty where it does not."""

    length: int | None = None
    """Tokens of the sample as the data states them."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the samples of one source are read."""

    root: Path = Path()
    """What paths of pictures are relative to."""

    max_tiles: int | None = None
    augment: bool = False


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a `datasets` data set; None where it has no such column."""

    messages: str = "messages"
    images: str | None = "images"
    videos: str | None = None


@dataclass(frozen=True)
class _Place:
    """Where a picture goes: the next of the sample's, or its own."""

    kind: Kind
    is_inline: bool
    own: Media | None = None


@dataclass
class _Turns:
    """A conversation before its places are filled."""

    images: list[Media]
    videos: list[Media]
    turns: list[tuple[Role, list[Text | _Place]]] = field(default_factory=list)

    def add_words(self, role: Role, words: str) -> None:
        """Words; a user's may hold marks of the kinds of media that the sample has."""
        marks = [mark for mark, kind in _MARKS.items() if role == "user" and self._media(kind)]
        content: list[Text | _Place] = []
        for piece in re.split(f"({'|'.join(marks)})", words) if marks else [words]:
            if piece in marks:
                content.append(_Place(_MARKS[piece], is_inline=True))
            elif piece:
                content.append(Text(piece))
        self.turns.append((role, content))

    def messages(self, clip: tuple[float, float] | None) -> tuple[Message, ...]:
        """The conversation with every picture in its place, or CorruptSample."""
        self._place_a_single_one("video")
        self._place_a_single_one("image")
        places = [part for _, content in self.turns for part in content if isinstance(part, _Place)]
        for kind in ("image", "video"):
            wanted = sum(place.kind == kind and place.own is None for place in places)
            if wanted != (given := len(self._media(kind))):
                raise CorruptSample("marks", f"it has {wanted} places for {given} of its media of type {kind}")
        rest = {"image": iter(self.images), "video": iter(self.videos)}
        messages = []
        for role, content in self.turns:
            parts: list[Text | ImageInput | VideoInput] = []
            for part in content:
                if isinstance(part, Text):
                    # A frame's line ends by itself.
                    after_video = bool(parts) and isinstance(parts[-1], VideoInput)
                    parts.append(Text(part.text.removeprefix("\n")) if after_video else part)
                    continue
                source = next(rest[part.kind]) if part.own is None else part.own
                if part.kind == "image":
                    parts.append(ImageInput(source, is_inline=part.is_inline))
                else:
                    parts.append(VideoInput(source, *(clip or ())))
            messages.append(Message(role, tuple(parts)))
        return _checked(messages)

    def _media(self, kind: Kind) -> list[Media]:
        return self.images if kind == "image" else self.videos

    def _place_a_single_one(self, kind: Kind) -> None:
        """One image or video that no turn has a place for goes before the first words of a user."""
        parts = chain.from_iterable(content for _, content in self.turns)
        if len(self._media(kind)) != 1 or any(isinstance(part, _Place) and part.kind == kind for part in parts):
            return
        for role, content in self.turns:
            if role == "user":
                content[:0] = [_Place(kind, is_inline=True), Text("\n")]
                return


def from_line(key: str, line: object, reading: Reading) -> Conversation:
    """The sample of one parsed line of InternVL's JSONL format; raises CorruptSample."""
    if not isinstance(line, Mapping):
        raise CorruptSample("line", f"the line holds {type(line).__name__}; expected an object with conversations")
    said = _list_of(line, "conversations")
    turns = _Turns(_all_media(line, "image", reading), _all_media(line, "video", reading))
    for turn in said:
        words, speaker = _get(turn, "value"), _get(turn, "from")
        if not isinstance(words, str):
            raise CorruptSample("line", f"a turn's value is {type(words).__name__}; expected words")
        turns.add_words(_role(speaker, _LINE_ROLES), words)
    length = line.get("length")
    return Conversation(
        key=key,
        messages=_made(turns, _clip(line.get("clip"))),
        max_tiles=reading.max_tiles,
        augment=reading.augment,
        image_sizes=_sizes(line),
        length=length if isinstance(length, int) and length > 0 else None,
    )


def from_row(key: str, row: Mapping[str, Any], columns: Columns, reading: Reading) -> Conversation:
    """The sample of one undecoded row of a `datasets` data set; raises CorruptSample."""
    turns = _Turns(_all_media(row, columns.images, reading), _all_media(row, columns.videos, reading))
    for turn in _list_of(row, columns.messages):
        role, content = _role(_get(turn, "role"), _ROW_ROLES), _get(turn, "content")
        if isinstance(content, str):
            turns.add_words(role, content)
        elif isinstance(content, list):
            turns.turns.append((role, [_part(part, reading) for part in content]))
        else:
            raise CorruptSample("row", f"a turn's content is {type(content).__name__}; expected words or parts")
    return Conversation(key=key, messages=_made(turns), max_tiles=reading.max_tiles, augment=reading.augment)


def _part(part: object, reading: Reading) -> Text | _Place:
    kind = _get(part, "type")
    if kind == "text":
        return Text(str(_get(part, "text") or ""))
    if kind == "image" or kind == "video":
        own = _get(part, kind) or _get(part, "path")
        return _Place(kind, is_inline=False, own=None if own is None else _media(own, reading))
    raise CorruptSample("row", f"a part is of type {kind!r}; expected text, image or video")


def _clip(value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(moment, (int, float)) for moment in value):
        return value[0], value[1]
    raise CorruptSample("line", f"its clip is {value!r}; expected two moments in seconds")


def _made(turns: _Turns, clip: tuple[float, float] | None = None) -> tuple[Message, ...]:
    try:
        return turns.messages(clip)
    except ConfigError as error:  # what the engine's own messages refuse
        raise CorruptSample("turns", str(error)) from error


def _checked(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, leading space of every answer dropped."""
    roles = [message.role for message in messages]
    if roles[-2:] != ["user", "assistant"] or "system" in roles[1:]:
        raise CorruptSample(
            "turns",
            f"its turns are of {', '.join(roles) or 'nobody'}; expected an optional system message first, and a "
            "question and its answer last",
        )
    checked = []
    for message in messages:
        if message.role == "assistant":
            texts = [part.text for part in message.content if isinstance(part, Text)]
            if len(texts) != len(message.content):
                raise CorruptSample("turns", "a turn of the assistant holds a picture")
            if not (answer := "".join(texts).lstrip()):
                raise CorruptSample("empty answer", "a turn of the assistant says nothing")
            message = Message("assistant", (Text(answer),))
        checked.append(message)
    return tuple(checked)


def _role(name: object, roles: Mapping[str, Role]) -> Role:
    if not isinstance(name, str) or name not in roles:
        raise CorruptSample("turns", f"a turn is of {name!r}; expected {', '.join(roles)}")
    return roles[name]


def _all_media(record: Mapping[str, Any], name: str | None, reading: Reading) -> list[Media]:
    return [_media(one, reading) for one in _one_or_more(record.get(name) if name else None)]


def _media(given: object, reading: Reading) -> Media:
    """A path under the root, or the bytes of a file; `datasets` keeps both in one object."""
    if isinstance(given, Mapping):
        given = given.get("bytes") or given.get("path")
    if isinstance(given, str) and given:
        return given if "://" in given else reading.root / given
    if isinstance(given, bytes):
        return given
    raise CorruptSample("media", f"a picture is given as {type(given).__name__}; expected a path or a file's bytes")


def _sizes(line: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    widths = _one_or_more(line.get("width_list") or line.get("width"))
    heights = _one_or_more(line.get("height_list") or line.get("height"))
    is_stated = all(isinstance(side, int) and side > 0 for side in (*widths, *heights))
    return tuple(zip(widths, heights, strict=True)) if is_stated and len(widths) == len(heights) else ()


def _one_or_more(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _list_of(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list) or not value:
        raise CorruptSample("turns", f"it has no {name}; expected a list of turns that is not empty")
    return value


def _get(record: object, name: str) -> Any:
    if not isinstance(record, Mapping):
        raise CorruptSample("turns", f"a turn holds {type(record).__name__}; expected an object")
    return record.get(name)
