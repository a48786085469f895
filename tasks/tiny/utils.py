"""What lmms-eval calls for the built-in benchmark: the pictures of a document and the score of an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """The document's pictures in order, or the path of its video."""
    if "video" in doc:
        return [str(_FOLDER / doc["video"])]
    return [doc[name].convert("RGB") for name in ("image_1", "image_2") if name in doc]


def normalise(text: str) -> str:
    """Case, surrounding blanks and a full stop at the end do not count."""
    return text.strip().removesuffix(".").casefold()


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 for the one right answer, 0 for any other."""
    return {"exact_match": float(normalise(results[0]) == normalise(doc["answer"]))}
