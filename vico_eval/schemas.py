"""Base class for the schemas of files that we read, written by programs or by users."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Closed(BaseModel):
    """A schema that rejects unknown keys, so that a misspelt key is an error and not a missing value."""

    model_config = ConfigDict(extra="forbid", frozen=True)
