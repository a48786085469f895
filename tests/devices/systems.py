"""The systems of the tests of methods: pytest wants their names when it collects tests, before any fixture."""

from ..methods.systems import ON_TILES, SYSTEMS, picture, request  # noqa: TID252

__all__ = ["ON_TILES", "SYSTEMS", "picture", "request"]
