"""Evaluate visual-token compression on InternVL: what it costs in answers, what it saves in tokens."""

__version__ = "0.1.0"
