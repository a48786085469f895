"""Read JSON from a run's files, with errors that name the file and the line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from vico_eval.errors import ReportError

Schema = TypeVar("Schema", bound=BaseModel)


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ReportError: the file can't be read, is cut off or isn't an object.
    """
    return parse_object(read_text(path), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line's place (`file, line n`, for messages) and text; blank lines are skipped.

    Raises:
        ReportError: the file can't be read.
    """
    for number, line in enumerate(text_lines(path), start=1):
        if line and not line.isspace():
            yield place_of(path, number), line


def text_lines(path: Path) -> Iterator[str]:
    """Yield a file's lines without the line breaks.

    Raises:
        ReportError: the file can't be read.
    """
    try:
        # splitlines() would also break at characters such as U+2028, which an answer may contain.
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield line.removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} can't be read: {error}.") from error


def place_of(path: Path, line: int) -> str:
    """A line of a file, as error messages name it."""
    return f"{path}, line {line}"


def parse_object(text: str, place: str) -> dict[str, Any]:
    """Parse the JSON object in `text`.

    Raises:
        ReportError: the text is not valid JSON or not an object; the message names `place`.
    """
    try:
        value = _parse(text)
    except (ValueError, RecursionError) as error:
        raise ReportError(
            f"{place} is not valid JSON ({error}). It may have been cut off when a run was stopped; repeat the run."
        ) from error
    if not isinstance(value, dict):
        raise ReportError(f"{place} is a JSON {type(value).__name__}; expected an object.")
    return value


def object_or_none(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object in `text`; None if it isn't one, as for a line that was cut off or has an invalid byte."""
    try:
        value = _parse(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def validate(schema: type[Schema], value: object, place: str) -> Schema:
    """Validate `value` as `schema`.

    Raises:
        ReportError: the value doesn't fit; the message names the place and each wrong field with the reason.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(
            f"`{'.'.join(map(str, problem['loc'])) or schema.__name__}`: {problem['msg']}" for problem in error.errors()
        )
        raise ReportError(f"{place} doesn't fit the schema of {schema.__name__}: {problems}.") from error


def _parse(text: str | bytes) -> object:
    try:
        # Takes half as long as json, whose parsing dominates reading a run. Caching values too would cost that gain.
        return from_json(text, cache_strings="keys")
    except ValueError:
        # Accepts lone surrogates, and its errors give the position.
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))


def read_text(path: Path) -> str:
    """Read a file's text.

    Raises:
        ReportError: the file can't be read or isn't UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} can't be read: {error}.") from error
