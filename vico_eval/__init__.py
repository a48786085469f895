"""Evaluate visual-token compression on InternVL: what it costs in answers, what it saves in tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vico_eval.engine.loading import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `import vico_eval` is part of every command's start, and loading a model is not.
    if name == "load":
        from vico_eval.engine.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
