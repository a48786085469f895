"""Somebody's words in a prompt: no control token comes of them, however they are cut into parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Said:
    """The text of a message, as its parts are added, and which of its characters are somebody's words."""

    text: str = ""

    is_words: list[bool] = field(default_factory=list)

    def add(self, text: str, *, is_words: bool = False) -> None:
        """Put `text` behind what is there."""
        self.text += text
        self.is_words += [is_words] * len(text)

    def end_line(self) -> None:
        """Have the next text begin a line."""
        if self.text and not self.text.endswith("\n"):
            self.add("\n")


class ControlTokens:
    """The tokens that shape a prompt; in somebody's words they would forge it."""

    def __init__(self, tokens: Iterable[str], *, end: str) -> None:
        """`end` is what the template puts behind every message."""
        longest_first = sorted({token for token in tokens if len(token) > 1}, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._end = end

    def defuse(self, said: Said) -> str:
        """The message's text; a control token that is made of somebody's words, if only in part, has a space in it.

        Parts are joined before: two of them, or one and what stands beside it, can make a token together.
        """
        before = "\n"  # as every template's head of a message ends
        is_words = [False, *said.is_words, *(False for _ in self._end)]

        def apart(match: re.Match[str]) -> str:
            start = match.start()
            first = next((place for place in range(*match.span()) if is_words[place]), None)
            if first is None:
                return match[0]
            cut = max(first, start + 1) - start
            return f"{match[0][:cut]} {match[0][cut:]}"

        text = self._pattern.sub(apart, f"{before}{said.text}{self._end}")
        return text[len(before) : -len(self._end)]
