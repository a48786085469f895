"""Training configurations and recipes: YAML files with a closed schema."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter

from vico_eval.schemas import Closed
from vico_eval.yaml_files import read_yaml

MOST_WIDE = 65536
SEEDS_END = 1 << 63
"""The upper bound, exclusive, of a seed: torch accepts none above it."""


class ClosedConfig(Closed):
    """A `Closed` schema that also rejects infinite and NaN values."""

    model_config = ConfigDict(allow_inf_nan=False)


Config = TypeVar("Config", bound=ClosedConfig)


def read_config(path: Path, schema: type[Config], example: str) -> Config:
    """Read and validate a file.

    Args:
        path: the file to read.
        schema: its fields.
        example: an example of such a file, named in errors.

    Raises:
        ConfigError: the file can't be read, is not a YAML mapping, or has a missing, unknown or invalid field.
    """
    advice = f"Pass a YAML file such as {example}. The fields are {', '.join(schema.model_fields)}."
    return read_yaml(TypeAdapter(schema), path, advice=advice)
