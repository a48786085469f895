"""Make text from outside safe to show. Names, failure reasons and server messages can contain any character.

A terminal would execute an escape sequence, a direction mark reverses the text around it, and a lone surrogate has no
encoding.
"""

import unicodedata

_LAYOUT = "\n\t"
_JOINERS = "\u200c\u200d"
"""Invisible characters that join letters or emoji into one; harmless."""

_PLAIN = dict(zip("×−–—†µ·•‘’“”\N{NO-BREAK SPACE}", "x---#u.*''\"\" ", strict=True))
_PLAIN |= {"✓": "yes", "±": "+-", "…": "...", "≤": "<=", "≥": ">=", "→": "->"}


def one_line(text: str) -> str:
    """The text on one line: white space collapses to single spaces, and unprintable characters are removed."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def printable(text: str) -> str:
    r"""The text with unprintable characters escaped, as in `\x1b`; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _written_out(character) for character in text)


def shown(text: str, encoding: str) -> str:
    r"""The printable text, limited to an encoding: other characters become plain ones or escapes such as `\u4e2d`."""
    text = printable(text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_in_encoding(character, encoding) for character in text)
    return text


def _in_encoding(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return _PLAIN.get(character, _written_out(character))
    return character


def _is_shown(character: str) -> bool:
    return (
        character.isprintable()
        or character in _LAYOUT
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"
    )


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
