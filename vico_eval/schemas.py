"""The base of the schemas of files: what a program wrote for us to read, or a user."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Closed(BaseModel):
    """An unknown key in a file is an error: a misspelt one would otherwise pass as absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)
