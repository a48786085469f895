"""Configurations and recipes of trainings: YAML files with a closed schema."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter

from vico_eval.schemas import Closed
from vico_eval.yaml_files import read_yaml

MOST_WIDE = 65536
SEEDS_END = 1 << 63
"""Above what torch takes as a seed."""


class ClosedConfig(Closed):
    """As `Closed`; a number that is infinite or NaN is an error too."""

    model_config = ConfigDict(allow_inf_nan=False)


Config = TypeVar("Config", bound=ClosedConfig)


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
    return read_yaml(TypeAdapter(schema), path, advice=advice)
