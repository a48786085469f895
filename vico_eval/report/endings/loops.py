"""Detect repetition loops: answers that end in the same phrase over and over.

A looping decoder repeats itself up to the limit on new tokens, so only an answer's end is examined: at most 8,000
characters and 2,000 candidate phrases, whatever its length.
"""

MIN_REPEATS = 4
"""Minimum number of repeats at the end of a looping answer."""

MIN_CHARACTERS = 100
"""Minimum total length of the repeats; shorter repeats also occur at the end of tables and lists of numbers."""

MAX_PHRASE = 2000
"""Maximum length of a phrase in characters."""

_PROBE = MIN_CHARACTERS // MIN_REPEATS


def repeated_phrase(text: str) -> str | None:
    """The phrase that an answer repeats at its end; None if it doesn't end in a loop.

    An answer ends in a loop if its last `max(MIN_CHARACTERS, MIN_REPEATS * n)` characters, without trailing white
    space, have a period of n characters, 1 <= n <= MAX_PHRASE. The last repeat may be cut off anywhere by the limit.
    Repeats must be exact, so a list that keeps counting is not a loop.

    Returns:
        The last n characters for the smallest such n, so the phrase may begin in the middle of a word.
    """
    text = text.rstrip()
    if len(text) < MIN_CHARACTERS:
        return None
    # With a period of n, the last characters also occur n places earlier. The repeats together are at least four times
    # as long as the probe and the phrase, so that place is within them.
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
