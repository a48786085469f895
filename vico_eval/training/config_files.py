"""Configurations and recipes of trainings: YAML files with a closed schema."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter

from vico_eval import yaml_files

MOST_WIDE = 65536
SEEDS_END = 1 << 63
"""Above what torch takes as a seed."""


class Closed(yaml_files.Closed):
    """A number that is infinite or none is an error, and so is an unknown key."""

    model_config = ConfigDict(allow_inf_nan=False)


Config = TypeVar("Config", bound=Closed)


def read_config(path: Path, schema: type[Config], example: str) -> Config:
    """Read and check a file.

    Args:
        path: the file.
        schema: its fields.
        example: a file of that kind, for whoever has none.

    Raises:
        ConfigError: the file can't be read, is no YAML mapping, or has a missing, unknown or invalid field.
    """
    advice = f"Pass a YAML file such as {example}. The fields are {', '.join(schema.model_fields)}."
    return yaml_files.read_yaml(TypeAdapter(schema), path, advice=advice)
