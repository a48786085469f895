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
"""No film has a moment beyond it, and no number of frames either."""

_ANY_MARK = re.compile(f"({'|'.join(_MARKS)})")


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

    @property
    def holds_pictures(self) -> bool:
        """Whether pictures are in it as bytes, not as paths alone."""
        parts = (part for message in self.messages for part in message.content)
        return any(not isinstance(part, Text) and isinstance(part.source, bytes) for part in parts)


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

    def add(self, role: Role, content: Sequence[Text | _Place]) -> None:
        """A turn; a user's words may hold marks, and those of others are words."""
        parts: list[Text | _Place] = []
        for part in content:
            parts += _split(part.text) if role == "user" and isinstance(part, Text) else [part]
        self.turns.append((role, parts))

    def messages(self, clip: tuple[float | None, float | None] | None) -> tuple[Message, ...]:
        """The conversation with every picture in its place, or CorruptSample."""
        self._place_in_front("video")
        self._place_in_front("image")
        places = [part for _, content in self.turns for part in content if isinstance(part, _Place)]
        for kind in ("image", "video"):
            wanted = sum(place.kind == kind and place.own is None for place in places)
            if wanted != (given := len(self._media(kind))):
                raise CorruptSample(
                    "marks", f"it has {wanted} places for {given} {kind}s; expected a <{kind}> for each, or none at all"
                )
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

    def _place_in_front(self, kind: Kind) -> None:
        """Images or videos that no turn has a place for go before the first words of a user, a line each."""
        parts = chain.from_iterable(content for _, content in self.turns)
        if any(isinstance(part, _Place) and part.kind == kind for part in parts):
            return
        for role, content in self.turns:
            if role == "user":
                content[:0] = [_Place(kind, is_inline=True), Text("\n")] * len(self._media(kind))
                return


def from_line(key: str, line: object, reading: Reading) -> Conversation:
    """The sample of one parsed line of a JSONL file; raises CorruptSample."""
    if not isinstance(line, Mapping):
        raise CorruptSample("line", f"the line holds {type(line).__name__}; expected an object with conversations")
    turns = _Turns(_all_media(one_of(line, IMAGES), reading), _all_media(one_of(line, VIDEOS), reading))
    return _conversation(key, line, one_of(line, TURNS), TURNS[0], turns, reading)


def from_row(key: str, row: Mapping[str, Any], columns: Columns, reading: Reading) -> Conversation:
    """The sample of one undecoded row of a `datasets` data set; raises CorruptSample."""
    images, videos = (row.get(name) if name else None for name in (columns.images, columns.videos))
    turns = _Turns(_all_media(images, reading), _all_media(videos, reading))
    return _conversation(key, row, row.get(columns.messages), columns.messages, turns, reading)


def _conversation(
    key: str, record: Mapping[str, Any], said: object, name: str, turns: _Turns, reading: Reading
) -> Conversation:
    """A sample whose media are found, with its turns, `said`, which stand under `name`."""
    if not isinstance(said, list) or not said:
        raise CorruptSample("turns", f"it has no {name}; expected a list of turns that is not empty")
    if holds(system := record.get(SYSTEM)):
        turns.add("system", _content(system, reading))
    for turn in said:
        if not isinstance(turn, Mapping):
            raise CorruptSample("turns", f"a turn holds {type(turn).__name__}; expected an object")
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
    """What a turn says; an empty text where that is all it has."""
    said = one_of(turn, WORDS)
    return said if said is not None else next((turn[name] for name in WORDS if turn.get(name) is not None), None)


def _content(said: object, reading: Reading) -> list[Text | _Place]:
    if isinstance(said, str):
        return [Text(said)] if said else []
    if isinstance(said, list):
        return [_part(part, reading) for part in said]
    raise CorruptSample("line", f"a turn's content is {type(said).__name__}; expected words or parts")


def _split(words: str) -> list[Text | _Place]:
    """Words of a user, cut where a picture goes."""
    pieces = (piece for piece in _ANY_MARK.split(words) if piece)
    return [_Place(_MARKS[piece], is_inline=True) if piece in _MARKS else Text(piece) for piece in pieces]


def _part(part: object, reading: Reading) -> Text | _Place:
    if not isinstance(part, Mapping):
        raise CorruptSample("turns", f"a part holds {type(part).__name__}; expected an object")
    kind = part.get("type")
    if kind == "text":
        if not isinstance(words := part.get("text") or "", str):
            raise CorruptSample("turns", f"a part's text is {type(words).__name__}; expected words")
        return Text(words)
    if kind == "image" or kind == "video":
        own = one_of(part, (kind, "path"))
        return _Place(kind, is_inline=False, own=None if own is None else _media(own, reading))
    raise CorruptSample("turns", f"a part is of type {kind!r}; expected text, image or video")


def _clip(record: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """The stretch of its videos that a sample is about, in seconds; None is all of them."""
    clip = record.get(CLIP)
    ends = record.get(START), record.get(END)
    if clip is None:
        return _moments(f"start and end are {ends!r}", ends) if ends != (None, None) else None
    if not isinstance(clip, list) or len(clip) != 2:
        raise CorruptSample("line", f"its clip is {clip!r}; expected two moments in seconds")
    moments = _moments(f"clip is {clip!r}", clip)
    if ends not in ((None, None), moments):
        raise CorruptSample("keys", f"its clip is {clip!r}, its start and end {ends!r}; expected one of them")
    return moments


def _moments(what: str, given: Sequence[object]) -> tuple[float | None, float | None]:
    for moment in given:
        is_number = isinstance(moment, (int, float)) and not isinstance(moment, bool)
        if moment is not None and not (is_number and abs(moment) <= _LONGEST_S):  # type: ignore[arg-type]
            raise CorruptSample("line", f"its {what}; expected two moments in seconds")
    start, end = given
    return start, end  # type: ignore[return-value]


def _made(turns: _Turns, clip: tuple[float | None, float | None] | None) -> tuple[Message, ...]:
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


def _role(name: object) -> Role:
    if not isinstance(name, str) or name not in _ROLES:
        raise CorruptSample("turns", f"a turn is of {name!r}; expected {', '.join(_ROLES)}")
    return _ROLES[name]


def _all_media(given: object, reading: Reading) -> list[Media]:
    return [_media(one, reading) for one in listed(given)]


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
    widths = listed(line.get("width_list") or line.get("width"))
    heights = listed(line.get("height_list") or line.get("height"))
    is_stated = all(isinstance(side, int) and side > 0 for side in (*widths, *heights))
    return tuple(zip(widths, heights, strict=True)) if is_stated and len(widths) == len(heights) else ()
