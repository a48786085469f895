"""Evaluate visual-token compression: how much accuracy it costs and how much compute it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vico_eval.engine.model import evaluate as evaluate
    from vico_eval.engine.model import load as load
    from vico_eval.engine.model import request as request

__version__ = "0.1.0"

_FROM_PYTHON = ("evaluate", "load", "request")


def __getattr__(name: str) -> Any:
    # Every command imports `vico_eval`; only some load a model.
    if name in _FROM_PYTHON:
        from vico_eval.engine import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
