"""Parsing one sample as a conversation, from a line in InternVL's format or a row of a `datasets` data set.

No media are opened here; they are read when the sample is prepared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from vico_eval.engine.requests import ImageInput, Message, Role, Text, VideoInput
from vico_eval.errors import ConfigError
from vico_eval.training.data.reading.corrupt import CorruptSample
from vico_eval.training.data.reading.keys import (
    CLIP,
    END,
    IMAGES,
    SPEAKER,
    START,
    SYSTEM,
    TURNS,
    VIDEOS,
    WORDS,
    holds,
    listed,
    one_of,
)

Kind = Literal["image", "video"]
Media = str | Path | bytes

_ROLES: dict[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}
_MARKS: dict[str, Kind] = {"<image>": "image", "<video>": "video"}
_LONGEST_S = 1e9
"""The largest plausible time stamp in seconds."""

_ANY_MARK = re.compile(f"({'|'.join(_MARKS)})")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation whose media have not been read yet."""

    key: str
    """The file and line, or the data set and row."""

    messages: tuple[Message, ...]
    """An optional system message, then turns; the last two are a user's question and the assistant's answer."""

    max_tiles: int | None = None
    """Maximum number of tiles that all its images share, at least one each, without thumbnails. None means the
    checkpoint's limit."""

    augment: bool = False
    """Whether its tiles are degraded at random."""

    image_sizes: tuple[tuple[int, int], ...] = ()
    """Width and height in pixels of each image according to the data; empty if the data has no sizes."""

    length: int | None = None
    """Length of the sample in tokens according to the data, if stated."""

    @property
    def holds_pictures(self) -> bool:
        """Whether it contains media as bytes, not only as paths."""
        parts = (part for message in self.messages for part in message.content)
        return any(not isinstance(part, Text) and isinstance(part.source, bytes) for part in parts)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the samples of one source are read."""

    root: Path = Path()
    """The folder that media paths are relative to."""

    max_tiles: int | None = None
    augment: bool = False


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Column names of a `datasets` data set; None if it has no such column."""

    messages: str = "messages"
    images: str | None = "images"
    videos: str | None = None


@dataclass(frozen=True)
class _Place:
    """A placeholder for the sample's next image or video, or for one of its own."""

    kind: Kind
    is_inline: bool
    own: Media | None = None


@dataclass
class _Turns:
    """A conversation before its placeholders are filled."""

    images: list[Media]
    videos: list[Media]
    turns: list[tuple[Role, list[Text | _Place]]] = field(default_factory=list)

    def add(self, role: Role, content: Sequence[Text | _Place]) -> None:
        """Add a turn. Placeholders are recognised only in a user's text."""
        parts: list[Text | _Place] = []
        for part in content:
            parts += _split(part.text) if role == "user" and isinstance(part, Text) else [part]
        self.turns.append((role, parts))

    def messages(self, clip: tuple[float | None, float | None] | None) -> tuple[Message, ...]:
        """Return the conversation with its media in place; raises CorruptSample."""
        self._place_in_front("video")
        self._place_in_front("image")
        places = [part for _, content in self.turns for part in content if isinstance(part, _Place)]
        for kind in ("image", "video"):
            wanted = sum(place.kind == kind and place.own is None for place in places)
            if wanted != (given := len(self._media(kind))):
                raise CorruptSample(
                    "marks",
                    f"it has {wanted} placeholders for {given} {kind}s; expected one <{kind}> for each, or none at all",
                )
        rest = {"image": iter(self.images), "video": iter(self.videos)}
        messages = []
        for role, content in self.turns:
            parts: list[Text | ImageInput | VideoInput] = []
            for part in content:
                if isinstance(part, Text):
                    # A video's last frame already ends its line.
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

    def _place_in_front(self, kind: Kind) -> None:
        """Put images or videos before the first user text, one per line, if no turn has a placeholder for that kind."""
        parts = chain.from_iterable(content for _, content in self.turns)
        if any(isinstance(part, _Place) and part.kind == kind for part in parts):
            return
        for role, content in self.turns:
            if role == "user":
                content[:0] = [_Place(kind, is_inline=True), Text("\n")] * len(self._media(kind))
                return


def from_line(key: str, line: object, reading: Reading) -> Conversation:
    """Build the conversation of one parsed line of a JSONL file; raises CorruptSample."""
    if not isinstance(line, Mapping):
        raise CorruptSample("line", f"the line is a {type(line).__name__}; expected an object with conversations")
    turns = _Turns(_all_media(one_of(line, IMAGES), reading), _all_media(one_of(line, VIDEOS), reading))
    return _conversation(key, line, one_of(line, TURNS), TURNS[0], turns, reading)


def from_row(key: str, row: Mapping[str, Any], columns: Columns, reading: Reading) -> Conversation:
    """Build the conversation of one undecoded row of a `datasets` data set; raises CorruptSample."""
    images, videos = (row.get(name) if name else None for name in (columns.images, columns.videos))
    turns = _Turns(_all_media(images, reading), _all_media(videos, reading))
    return _conversation(key, row, row.get(columns.messages), columns.messages, turns, reading)


def _conversation(
    key: str, record: Mapping[str, Any], said: object, name: str, turns: _Turns, reading: Reading
) -> Conversation:
    """Build a sample from its located media and its turns `said`, the value of the key `name`."""
    if not isinstance(said, list) or not said:
        raise CorruptSample("turns", f"it has no {name}; expected a non-empty list of turns")
    if holds(system := record.get(SYSTEM)):
        turns.add("system", _content(system, reading))
    for turn in said:
        if not isinstance(turn, Mapping):
            raise CorruptSample("turns", f"a turn is a {type(turn).__name__}; expected an object")
        turns.add(_role(one_of(turn, SPEAKER)), _content(_words(turn), reading))
    length = record.get("length")
    return Conversation(
        key=key,
        messages=_made(turns, _clip(record) if turns.videos else None),
        max_tiles=reading.max_tiles,
        augment=reading.augment,
        image_sizes=_sizes(record),
        length=length if isinstance(length, int) and length > 0 else None,
    )


def _words(turn: Mapping[str, Any]) -> object:
    """Return a turn's content, which may be an empty text."""
    said = one_of(turn, WORDS)
    return said if said is not None else next((turn[name] for name in WORDS if turn.get(name) is not None), None)


def _content(said: object, reading: Reading) -> list[Text | _Place]:
    if isinstance(said, str):
        return [Text(said)] if said else []
    if isinstance(said, list):
        return [_part(part, reading) for part in said]
    raise CorruptSample("line", f"a turn's content is {type(said).__name__}; expected text or a list of parts")


def _split(words: str) -> list[Text | _Place]:
    """Split a user's text at its placeholders."""
    pieces = (piece for piece in _ANY_MARK.split(words) if piece)
    return [_Place(_MARKS[piece], is_inline=True) if piece in _MARKS else Text(piece) for piece in pieces]


def _part(part: object, reading: Reading) -> Text | _Place:
    if not isinstance(part, Mapping):
        raise CorruptSample("turns", f"a part is a {type(part).__name__}; expected an object")
    kind = part.get("type")
    if kind == "text":
        if not isinstance(words := part.get("text") or "", str):
            raise CorruptSample("turns", f"a part's text is {type(words).__name__}; expected a string")
        return Text(words)
    if kind == "image" or kind == "video":
        own = one_of(part, (kind, "path"))
        return _Place(kind, is_inline=False, own=None if own is None else _media(own, reading))
    raise CorruptSample("turns", f"a part is of type {kind!r}; expected text, image or video")


def _clip(record: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """Return the segment of its videos that a sample uses, in seconds; None means the whole videos."""
    clip = record.get(CLIP)
    ends = record.get(START), record.get(END)
    if clip is None:
        return _moments(f"start and end are {ends!r}", ends) if ends != (None, None) else None
    if not isinstance(clip, list) or len(clip) != 2:
        raise CorruptSample("line", f"its clip is {clip!r}; expected two times in seconds")
    moments = _moments(f"clip is {clip!r}", clip)
    if ends not in ((None, None), moments):
        raise CorruptSample("keys", f"its clip is {clip!r}, but its start and end are {ends!r}; expected one of them")
    return moments


def _moments(what: str, given: Sequence[object]) -> tuple[float | None, float | None]:
    for moment in given:
        is_number = isinstance(moment, (int, float)) and not isinstance(moment, bool)
        if moment is not None and not (is_number and abs(moment) <= _LONGEST_S):  # type: ignore[arg-type]
            raise CorruptSample("line", f"its {what}; expected two times in seconds")
    start, end = given
    return start, end  # type: ignore[return-value]


def _made(turns: _Turns, clip: tuple[float | None, float | None] | None) -> tuple[Message, ...]:
    try:
        return turns.messages(clip)
    except ConfigError as error:  # rejected by the engine's message classes
        raise CorruptSample("turns", str(error)) from error


def _checked(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Validate the messages and strip the leading space of every answer."""
    roles = [message.role for message in messages]
    if roles[-2:] != ["user", "assistant"] or "system" in roles[1:]:
        raise CorruptSample(
            "turns",
            f"its turns have the roles {', '.join(roles) or 'none'}; expected an optional system message first, and a "
            "question and its answer last",
        )
    checked = []
    for message in messages:
        if message.role == "assistant":
            texts = [part.text for part in message.content if isinstance(part, Text)]
            if len(texts) != len(message.content):
                raise CorruptSample("turns", "a turn of the assistant contains an image or video")
            if not (answer := "".join(texts).lstrip()):
                raise CorruptSample("empty answer", "a turn of the assistant has no text")
            message = Message("assistant", (Text(answer),))
        checked.append(message)
    return tuple(checked)


def _role(name: object) -> Role:
    if not isinstance(name, str) or name not in _ROLES:
        raise CorruptSample("turns", f"a turn has the role {name!r}; expected one of {', '.join(_ROLES)}")
    return _ROLES[name]


def _all_media(given: object, reading: Reading) -> list[Media]:
    return [_media(one, reading) for one in listed(given)]


def _media(given: object, reading: Reading) -> Media:
    """Return a path under the root, or a file's bytes; `datasets` stores both in one object."""
    if isinstance(given, Mapping):
        given = given.get("bytes") or given.get("path")
    if isinstance(given, str) and given:
        return given if "://" in given else reading.root / given
    if isinstance(given, bytes):
        return given
    raise CorruptSample("media", f"an image or video is given as {type(given).__name__}; expected a path or bytes")


def _sizes(line: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    widths = listed(line.get("width_list") or line.get("width"))
    heights = listed(line.get("height_list") or line.get("height"))
    is_stated = all(isinstance(side, int) and side > 0 for side in (*widths, *heights))
    return tuple(zip(widths, heights, strict=True)) if is_stated and len(widths) == len(heights) else ()
