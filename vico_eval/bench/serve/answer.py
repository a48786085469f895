"""One streamed answer: when its first token came, what the server counted, and what was wrong with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from vico_eval.server_reading import read_json

REFUSED = "connection refused"
TIMEOUT = "timeout"
CUT = "cut stream"
STREAM_ERROR = "error in the stream"
EMPTY = "empty answer"
TOO_MANY = "more tokens than max_tokens"
WRONG_COUNT = "wrong prompt count"
NO_USAGE = "no usage report"
BAD_USAGE = "impossible usage report"
NO_TOKEN = "no token in the stream"
UNREADABLE = "unreadable answer"

COUNTS = {"prompt_tokens": 1, "completion_tokens": 0}
"""What a usage report has to have, and the least that each can be."""

MAX_TOKENS = 2**26
"""Of a prompt or an answer; no model's context is as long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a request. Only those without a failure count in times and throughput."""

    sent_s: float
    """Since the load began, as all clocks of one command."""

    latency_s: float
    """From sending to the end of the stream, or to the failure."""

    first_token_s: float | None = None
    """From sending; None if none came."""

    last_token_s: float | None = None
    prompt_tokens: int | None = None
    """As the server counted them."""

    output_tokens: int | None = None
    failure: str = ""
    """Its kind; empty if there is none. `HTTP 503` is a kind, too."""

    words: str = ""
    """More of the failure, the server's own words where it said something."""

    @property
    def first_token_at_s(self) -> float:
        """Since the load began."""
        return self.sent_s + (self.first_token_s or 0.0)

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between tokens behind the first; None with fewer than two of them.

        By the server's count of tokens, since a piece of the stream may hold several.
        """
        if self.first_token_s is None or self.last_token_s is None or (self.output_tokens or 0) < 2:
            return None
        return (self.last_token_s - self.first_token_s) / ((self.output_tokens or 0) - 1)

    def as_record(self) -> dict[str, Any]:
        """For the file of requests."""
        return asdict(self)


class AnswerStream:
    """Reads the lines of a stream of server-sent events as they come."""

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.usage: dict[str, Any] | None = None
        self._has_ended = False
        self._error = ""
        self._stray = ""

    def feed(self, line: str, now: float) -> None:
        """One line, and when it came."""
        if not line.startswith("data:"):
            # Comments (":") keep connections open; anything else is no event stream.
            if line.strip() and not line.startswith((":", "event:", "id:", "retry:")):
                self._stray = self._stray or line
            return
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self._has_ended = True
            return
        try:
            self._read(read_json(data), now)
        except ValueError as error:
            self._error = self._error or f"{error}: {data}"

    def _read(self, event: Any, now: float) -> None:
        """Raises ValueError for what is no event of an answer's."""
        if not isinstance(event, dict):
            raise ValueError("an event that is no object")
        if event.get("error"):
            self._error = self._error or json.dumps(event["error"])
            return
        if (usage := event.get("usage")) is not None:
            if not isinstance(usage, dict):
                raise ValueError("a usage that is no object")
            self.usage = usage or self.usage
        for choice in _objects(event.get("choices")):
            is_last = bool(choice.get("finish_reason"))
            self._has_ended = self._has_ended or is_last
            # A token that is half a character, or special, has no text: the end says that it was there.
            if _has_text(choice) or is_last:
                self.first_at = now if self.first_at is None else self.first_at
                self.last_at = now

    def problem(self, max_tokens: int, prompt_tokens: int | None) -> tuple[str, str]:
        """Kind and words of what is wrong with an answer that was read to the end; both empty if nothing is.

        Args:
            max_tokens: that it was allowed.
            prompt_tokens: that it should report; None if not known.
        """
        if self._error:
            return STREAM_ERROR, self._error
        if not self._has_ended:
            return CUT, f"no end of the stream, but {self._stray!r}" if self._stray else "no end was sent"
        said = {name: value for name in COUNTS if (value := (self.usage or {}).get(name)) is not None}
        if wrong := {name: value for name, value in said.items() if _count(self.usage, name) is None}:
            return BAD_USAGE, f"{json.dumps(wrong)} where counts of tokens are expected"
        if self.prompt_tokens is None or self.output_tokens is None:
            return NO_USAGE, "the stream has no usage with prompt_tokens and completion_tokens"
        if self.output_tokens == 0:
            return EMPTY, "completion_tokens is 0"
        if self.first_at is None:
            return NO_TOKEN, f"completion_tokens is {self.output_tokens}, and no text came"
        if self.output_tokens > max_tokens:
            return TOO_MANY, f"{self.output_tokens} tokens where {max_tokens} were allowed"
        if prompt_tokens not in (None, self.prompt_tokens):
            return WRONG_COUNT, f"the server counted {self.prompt_tokens} where {prompt_tokens} were sent"
        return "", ""

    @property
    def prompt_tokens(self) -> int | None:
        """The server's count."""
        return _count(self.usage, "prompt_tokens")

    @property
    def output_tokens(self) -> int | None:
        """The server's count."""
        return _count(self.usage, "completion_tokens")


def _objects(values: Any) -> list[dict[str, Any]]:
    """A list of objects, or nothing in its place."""
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError("choices that are no list of objects")
    return values


def _has_text(choice: dict[str, Any]) -> bool:
    """Whether there is a piece of a completion's or a chat's text, thoughts included."""
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        raise ValueError("a delta that is no object")
    texts = [choice.get("text"), *(delta.get(name) for name in ("content", "reasoning_content", "reasoning"))]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError("a text that is none")
    return any(texts)


def _count(usage: dict[str, Any] | None, name: str) -> int | None:
    value = (usage or {}).get(name)
    # An answer may be empty, a prompt never is; and True is an int in Python.
    return value if type(value) is int and COUNTS[name] <= value <= MAX_TOKENS else None
