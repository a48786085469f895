"""Evaluate visual-token compression: how much accuracy it costs and how much compute it saves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vico_eval.commands.work.evaluate import evaluate as evaluate
    from vico_eval.engine.model import compare as compare
    from vico_eval.engine.model import load as load
    from vico_eval.engine.model import request as request

__version__ = "0.1.0"

_FROM_PYTHON = {
    "compare": "vico_eval.engine.model",
    "evaluate": "vico_eval.commands.work.evaluate",
    "load": "vico_eval.engine.model",
    "request": "vico_eval.engine.model",
}
"""Where each function stands that scripts and notebooks call."""


def __getattr__(name: str) -> Any:
    # Every command imports `vico_eval`; only some load a model.
    if name in _FROM_PYTHON:
        return getattr(import_module(_FROM_PYTHON[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # Notebooks complete names by it.
    return sorted({*globals(), *_FROM_PYTHON})
