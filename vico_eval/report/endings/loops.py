"""Repetition loops: answers that end in the same phrase again and again.

A looping decoder repeats itself until the limit on new tokens, so only an answer's end is looked at: 8,000 characters
and 2,000 candidate phrases at most, whatever its length.
"""

MIN_REPEATS = 4
"""How many times a phrase stands at the end of a looping answer, at least."""

MIN_CHARACTERS = 100
"""Length of all its repeats together, at least: shorter ones also end tables and lists of numbers."""

MAX_PHRASE = 2000
"""Characters of the longest phrase that is looked for."""

_PROBE = MIN_CHARACTERS // MIN_REPEATS


def repeated_phrase(text: str) -> str | None:
    """The phrase that an answer repeats at its end; None where it doesn't end in a loop.

    An answer ends in a loop if its last `max(MIN_CHARACTERS, MIN_REPEATS * n)` characters, less white space behind
    them, have a period of n characters, 1 <= n <= MAX_PHRASE. The last repeat may be cut off anywhere, as the limit
    leaves it. Repeats must be exact: a list that goes on counting is no loop.

    Returns:
        The last n characters for the smallest such n, so the phrase may begin in the middle of a word.
    """
    text = text.rstrip()
    if len(text) < MIN_CHARACTERS:
        return None
    # With a period of n, the last characters stand n places before as well. As all repeats are at least four times as
    # long as the probe and as the phrase, that place is still within them.
    probe = text[-_PROBE:]
    first = max(0, len(text) - _PROBE - MAX_PHRASE)
    place = text.rfind(probe, first, len(text) - 1)
    while place >= 0:
        period = len(text) - _PROBE - place
        needed = max(MIN_CHARACTERS, MIN_REPEATS * period)
        end = text[-needed:]
        if len(end) == needed and end[period:] == end[:-period]:
            return text[-period:]
        place = text.rfind(probe, first, place + _PROBE - 1)
    return None
