"""User text in a prompt, made safe: it never forms a control token, however it is split into parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Said:
    """The text of a message and which of its characters are user text."""

    text: str = ""

    is_words: list[bool] = field(default_factory=list)

    def add(self, text: str, *, is_words: bool = False) -> None:
        """Append `text`."""
        self.text += text
        self.is_words += [is_words] * len(text)

    def end_line(self) -> None:
        """Start a new line before the next text."""
        if self.text and not self.text.endswith("\n"):
            self.add("\n")


class ControlTokens:
    """The tokens that structure a prompt, which user text must not contain."""

    def __init__(self, tokens: Iterable[str], *, end: str) -> None:
        """`end` is the template's end of every message."""
        longest_first = sorted({token for token in tokens if len(token) > 1}, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._end = end

    def defuse(self, said: Said) -> str:
        """Return the message's text, with a space inserted into every control token that consists of user text, even in
        part.

        Parts are joined first, because two parts, or a part and its surroundings, can form a token together.
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
