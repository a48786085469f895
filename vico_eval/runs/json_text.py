"""JSON from files of a run: errors name the file and the line, and a line that was cut off is none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from vico_eval.errors import ReportError

Schema = TypeVar("Schema", bound=BaseModel)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ReportError: the file can't be read, is cut off or isn't an object.
    """
    return parse_object(read_text(path), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line's place (`file, line n`, for messages) and text; blank lines are skipped.

    Raises:
        ReportError: the file can't be read.
    """
    for number, line in enumerate(text_lines(path), start=1):
        if line and not line.isspace():
            yield place_of(path, number), line


def text_lines(path: Path) -> Iterator[str]:
    """A file's lines, one after the other, without the line breaks.

    Raises:
        ReportError: the file can't be read.
    """
    try:
        # Not splitlines() of its text: that also breaks at characters such as U+2028 that may stand inside an answer.
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield line.removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} can't be read: {error}.") from error


def place_of(path: Path, line: int) -> str:
    """How messages name a line of a file."""
    return f"{path}, line {line}"


def parse_object(text: str, place: str) -> dict[str, Any]:
    """The JSON object in `text`; `place` names it in the ReportError."""
    try:
        value = _parse(text)
    except (ValueError, RecursionError) as error:
        raise ReportError(
            f"{place} is not valid JSON ({error}). It may have been cut off when a run was stopped; repeat the run."
        ) from error
    if not isinstance(value, dict):
        raise ReportError(f"{place} holds a JSON {type(value).__name__}; expected an object.")
    return value


def object_or_none(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object in `text`; None where there is none, as in a line that was cut off or has a bad byte."""
    try:
        value = _parse(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def validate(schema: type[Schema], value: object, place: str) -> Schema:
    """`value` as `schema`.

    Raises:
        ReportError: naming the place, each wrong field and why.
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
        # Half the time of json's, which is most of reading a run; with a cache of texts it would be the same.
        return from_json(text, cache_strings="keys")
    except ValueError:
        # Takes half of a character too (a lone surrogate), and says where an error is.
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        ReportError: it can't be read, or is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} can't be read: {error}.") from error
