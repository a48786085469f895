"""Read YAML files into closed schemas. Errors name the file and the key."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from vico_eval.errors import BAD_INPUT, ConfigError

Schema = TypeVar("Schema")


def read_yaml(schema: TypeAdapter[Schema], path: Path, *, advice: str = "") -> Schema:
    """Read a YAML file as `schema`.

    Args:
        schema: the type to validate against.
        path: the file.
        advice: what a user should write in the file, for errors; empty for files of the package.

    Raises:
        ConfigError: the file can't be read, is not valid YAML or doesn't fit; the message names the file and each wrong
            key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # binary content or an invalid path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"Can't read {path}: {reason}. {advice or 'Is the installation complete?'}") from error
    try:
        values = yaml.safe_load(text)
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply to be read.") from error
    except (yaml.YAMLError, *BAD_INPUT) as error:  # a ValueError for 2026-13-01, a TypeError for {[]: 1}
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    try:
        return schema.validate_python(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']} (got {reprlib.repr(item['input'])})"
            for item in error.errors()
        )
        raise ConfigError(f"{path} does not fit: {problems}. {advice}".rstrip()) from error
