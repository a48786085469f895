"""Reading one streamed answer: the time of its first token, the server's token counts, and any failure."""

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
"""The counts that a usage report must have, each with its minimum."""

MAX_TOKENS = 2**26
"""The upper limit on a plausible token count; no model has a context of that length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of a request. Failed requests are excluded from times and throughput."""

    sent_s: float
    """When it was sent, in seconds since the load began."""

    latency_s: float
    """Time from sending to the end of the stream, or to the failure."""

    first_token_s: float | None = None
    """Time from sending to the first token; None if there was none."""

    last_token_s: float | None = None
    prompt_tokens: int | None = None
    """The server's count."""

    output_tokens: int | None = None
    failure: str = ""
    """The kind of failure, such as `HTTP 503`; empty if there is none."""

    words: str = ""
    """Details of the failure, in the server's own words if it sent any."""

    @property
    def first_token_at_s(self) -> float:
        """When the first token came, in seconds since the load began."""
        return self.sent_s + (self.first_token_s or 0.0)

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between consecutive tokens; None with fewer than two tokens.

        It uses the server's token count, because one event of the stream may hold several tokens.
        """
        if self.first_token_s is None or self.last_token_s is None or (self.output_tokens or 0) < 2:
            return None
        return (self.last_token_s - self.first_token_s) / ((self.output_tokens or 0) - 1)

    def as_record(self) -> dict[str, Any]:
        """Return the values for the requests file."""
        return asdict(self)


class AnswerStream:
    """Parses the lines of a stream of server-sent events as they arrive."""

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.usage: dict[str, Any] | None = None
        self._has_ended = False
        self._error = ""
        self._stray = ""

    def feed(self, line: str, now: float) -> None:
        """Process a line that arrived at time `now`."""
        if not line.startswith("data:"):
            # Comments (":") keep connections open; any other line is not part of an event stream.
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
        """Process an event; raises ValueError if it is malformed."""
        if not isinstance(event, dict):
            raise ValueError("an event is not an object")
        if event.get("error"):
            self._error = self._error or json.dumps(event["error"])
            return
        if (usage := event.get("usage")) is not None:
            if not isinstance(usage, dict):
                raise ValueError("usage is not an object")
            self.usage = usage or self.usage
        for choice in _objects(event.get("choices")):
            is_last = bool(choice.get("finish_reason"))
            self._has_ended = self._has_ended or is_last
            # A special token or an incomplete character has no text, but the final event shows that a token came.
            if _has_text(choice) or is_last:
                self.first_at = now if self.first_at is None else self.first_at
                self.last_at = now

    def problem(self, max_tokens: int, prompt_tokens: int | None) -> tuple[str, str]:
        """Return the kind and details of a failure of a fully read answer; both are empty if it is valid.

        Args:
            max_tokens: the requested maximum number of tokens.
            prompt_tokens: the prompt length that the server should report; None if unknown.
        """
        if self._error:
            return STREAM_ERROR, self._error
        if not self._has_ended:
            return CUT, f"the stream has no end marker but {self._stray!r}" if self._stray else "no end marker was sent"
        said = {name: value for name in COUNTS if (value := (self.usage or {}).get(name)) is not None}
        if wrong := {name: value for name, value in said.items() if _count(self.usage, name) is None}:
            return BAD_USAGE, f"{json.dumps(wrong)}; expected token counts"
        if self.prompt_tokens is None or self.output_tokens is None:
            return NO_USAGE, "the stream has no usage report with prompt_tokens and completion_tokens"
        if self.output_tokens == 0:
            return EMPTY, "completion_tokens is 0"
        if self.first_at is None:
            return NO_TOKEN, f"completion_tokens is {self.output_tokens}, but no text was sent"
        if self.output_tokens > max_tokens:
            return TOO_MANY, f"{self.output_tokens} tokens, but only {max_tokens} were allowed"
        if prompt_tokens not in (None, self.prompt_tokens):
            return WRONG_COUNT, f"the server counted {self.prompt_tokens} tokens, but {prompt_tokens} were sent"
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
    """Return a list of objects, empty for None; raises ValueError for other values."""
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError("choices is not a list of objects")
    return values


def _has_text(choice: dict[str, Any]) -> bool:
    """Whether a choice has text of a completion or chat, including reasoning."""
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        raise ValueError("a delta is not an object")
    texts = [choice.get("text"), *(delta.get(name) for name in ("content", "reasoning_content", "reasoning"))]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError("a text is not a string")
    return any(texts)


def _count(usage: dict[str, Any] | None, name: str) -> int | None:
    value = (usage or {}).get(name)
    # COUNTS allows an empty answer but no empty prompt. The exact type check excludes True, an int in Python.
    return value if type(value) is int and COUNTS[name] <= value <= MAX_TOKENS else None
