"""Read server responses within limits on bytes, line length and JSON depth.

The caller limits the time for a whole response, since a server can send one byte at a time.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import httpx

from vico_eval.errors import BAD_INPUT

MAX_STREAM_BYTES = 64 * 2**20
"""Limit on a streamed response, which is not kept in memory; 100,000 tokens take half of it."""

MAX_LINE_BYTES = 2**20
"""Limit on one event of a stream, which is kept in memory until it is complete."""

MAX_LIST_BYTES = 8 * 2**20
"""Limit on a list of models; those of the largest providers have less than 1 MiB."""

MAX_REFUSAL_BYTES = 2**16
"""Limit on what is read of a response whose status is not 200."""

MAX_DEPTH = 32
"""Limit on the nesting of JSON; real responses have five levels."""


class UnreadableAnswer(Exception):
    """A response is larger than any real one, or has an encoding that was not requested; the message tells which."""


async def read_lines(response: httpx.Response) -> AsyncIterator[list[str]]:
    """Yield the lines of a stream as they arrive; lines that arrive together are in one list.

    Raises:
        UnreadableAnswer: a line or the whole stream is too long, or the stream is compressed.
    """
    rest = bytearray()
    async for chunk in _chunks(response, MAX_STREAM_BYTES):
        rest += chunk
        if b"\n" in chunk or b"\r" in chunk:
            whole = rest.splitlines(keepends=True)
            rest = bytearray() if whole[-1].endswith((b"\n", b"\r")) else whole.pop()
            yield [line.rstrip(b"\r\n").decode("utf-8", errors="replace") for line in whole]
        if len(rest) > MAX_LINE_BYTES:
            raise UnreadableAnswer(f"a line of the stream has more than {MAX_LINE_BYTES} bytes")
    if rest:
        yield [rest.decode("utf-8", errors="replace")]


async def read_body(response: httpx.Response, most: int) -> str:
    """The whole response body as text.

    Raises:
        UnreadableAnswer: the body has more than `most` bytes, or is compressed.
    """
    return b"".join([chunk async for chunk in _chunks(response, most)]).decode("utf-8", errors="replace")


async def read_start(response: httpx.Response) -> str:
    """The beginning of a response body, for messages; a compressed body is replaced by a note."""
    start = bytearray()
    try:
        async for chunk in _chunks(response, MAX_REFUSAL_BYTES):
            start += chunk
    except UnreadableAnswer as error:
        start = start or bytearray(str(error), "utf-8")
    return start.decode("utf-8", errors="replace")


async def _chunks(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    # A few bytes of gzip can expand to gigabytes, so compression is neither requested nor decoded.
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise UnreadableAnswer("the answer is compressed although that was not requested")
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > most:
            raise UnreadableAnswer(f"the answer has more than {most} bytes")
        yield chunk


def read_json(text: str) -> Any:
    """Parse a server's JSON.

    Raises:
        ValueError: the text is not valid JSON, is nested deeper than `MAX_DEPTH`, or has a number that JSON lacks (NaN,
            Infinity).
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except BAD_INPUT as error:  # includes RecursionError
        raise ValueError(f"invalid JSON ({type(error).__name__})") from error
    # Counting brackets is cheap next to parsing, and few texts have more brackets than allowed levels.
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"JSON nested more than {MAX_DEPTH} levels deep")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a valid JSON number")


def _is_deeper(value: Any, levels: int) -> bool:
    """True if lists and objects are nested more than `levels` deep."""
    inside = [value]
    for _ in range(levels):
        inside = [
            part
            for one in inside
            if isinstance(one, (list, dict))
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, (list, dict))
        ]
    return bool(inside)
