"""Evaluate visual-token compression on InternVL: what it costs in answers, what it saves in tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vico_eval.engine.model import evaluate as evaluate
    from vico_eval.engine.model import load as load
    from vico_eval.engine.model import request as request

__version__ = "0.1.0"

_FROM_PYTHON = ("evaluate", "load", "request")


def __getattr__(name: str) -> Any:
    # `import vico_eval` is part of every command's start, and loading a model is not.
    if name in _FROM_PYTHON:
        from vico_eval.engine import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
