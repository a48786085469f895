"""Text from outside made safe to show: names, failure reasons and servers' words may hold anything.

An escape sequence would be obeyed by a terminal, a direction mark turns round what stands beside it, and half of a
surrogate pair is in no encoding.
"""

import unicodedata

_LAYOUT = "\n\t"
_JOINERS = "\u200c\u200d"
"""Between letters and emoji of which one is made; invisible, and harmless."""

_PLAIN = dict(zip("×−–—†µ·•‘’“”\N{NO-BREAK SPACE}", "x---#u.*''\"\" ", strict=True))
_PLAIN |= {"✓": "yes", "±": "+-", "…": "...", "≤": "<=", "≥": ">=", "→": "->"}


def one_line(text: str) -> str:
    """The text as a name: white space becomes single spaces, and what can't be printed is left out."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def printable(text: str) -> str:
    r"""The text with everything that can't be printed written out, as `\x1b`; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _written_out(character) for character in text)


def shown(text: str, encoding: str) -> str:
    r"""The printable text in an encoding: a plain form of what it hasn't, or else the character's code, as `\u4e2d`."""
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
