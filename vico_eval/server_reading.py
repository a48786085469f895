"""Reads what a server sends, as much of it as there may be: bytes, lines and the depth of JSON have limits.

Time has one, too, which is the caller's: it waits for a whole answer, since a server can send a byte now and then.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import httpx

from vico_eval.errors import BAD_INPUT

MAX_STREAM_BYTES = 64 * 2**20
"""Of a streamed answer. It is not kept; a hundred thousand tokens take half of it."""

MAX_LINE_BYTES = 2**20
"""Of one event of a stream, which is kept until it ends."""

MAX_LIST_BYTES = 8 * 2**20
"""Of a list of models; those of the largest providers have less than one."""

MAX_REFUSAL_BYTES = 2**16
"""Of what is read of an answer with another status than 200."""

MAX_DEPTH = 32
"""Of JSON within JSON; answers have five levels."""


class UnreadableAnswer(Exception):
    """An answer is larger than any real one, or written in a way that was not asked for; says so in its words."""


async def read_lines(response: httpx.Response) -> AsyncIterator[list[str]]:
    """The lines of a stream as they come, those that came together in one list.

    Raises:
        UnreadableAnswer: a line, or all of them, are too long, or they are compressed.
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
    """A whole body.

    Raises:
        UnreadableAnswer: it has more than `most` bytes, or is compressed.
    """
    return b"".join([chunk async for chunk in _chunks(response, most)]).decode("utf-8", errors="replace")


async def read_start(response: httpx.Response) -> str:
    """The beginning of a body, for messages; what a server compressed although it should not is left out."""
    start = bytearray()
    try:
        async for chunk in _chunks(response, MAX_REFUSAL_BYTES):
            start += chunk
    except UnreadableAnswer as error:
        start = start or bytearray(str(error), "utf-8")
    return start.decode("utf-8", errors="replace")


async def _chunks(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    # A few bytes of gzip can stand for gigabytes, so nothing is asked for compressed and nothing is decompressed.
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise UnreadableAnswer("the answer is compressed, which was not asked for")
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > most:
            raise UnreadableAnswer(f"the answer has more than {most} bytes")
        yield chunk


def read_json(text: str) -> Any:
    """A server's JSON.

    Raises:
        ValueError: it is none, is nested deeper than `MAX_DEPTH`, or has numbers that JSON lacks (NaN, Infinity).
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except BAD_INPUT as error:  # a RecursionError as well
        raise ValueError(f"no JSON that can be read ({type(error).__name__})") from error
    # Counting brackets costs nothing beside reading them, and few texts have more than they may have levels.
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"JSON nested in more than {MAX_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects stand in each other in more than so many levels."""
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
