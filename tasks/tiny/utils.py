"""lmms-eval's functions for the built-in benchmark: a document's images and an answer's score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Return the document's images in order, or the path of its video."""
    if "video" in doc:
        return [str(_FOLDER / doc["video"])]
    return [doc[name].convert("RGB") for name in ("image_1", "image_2") if name in doc]


def normalise(text: str) -> str:
    """Remove surrounding white space and a final full stop, and ignore case."""
    return text.strip().removesuffix(".").casefold()


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return 1 for the correct answer and 0 for any other."""
    return {"exact_match": float(normalise(results[0]) == normalise(doc["answer"]))}
