"""Rejection of NaN and infinite numbers."""

from __future__ import annotations

from collections.abc import Iterable


def refuse_not_finite(what: str, keys: Iterable[str]) -> None:
    """Raise FloatingPointError, which names `what` and the documents, if `keys` (those with such numbers) has any."""
    if named := ", ".join(dict.fromkeys(keys)):
        raise FloatingPointError(
            f"the {what} of {named} are not finite (NaN or infinite), so no decision can be based on them. Check "
            "the checkpoint's weights; if they are correct, pass a dtype= with a larger range."
        )
