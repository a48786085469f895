"""What a run leaves beside lmms-eval's own files: record, answers with accounts, and failures, as closed schemas."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from vico_eval.errors import ReportError

RECORD_NAME = "record.json"
RECORD_VERSION = 1

DocumentKey = tuple[str, int | str]
"""Task and doc_id: a number in lmms-eval; VLMEvalKit's index of a row, which may hold words."""

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Closed(BaseModel):
    """A key that nobody declared is an error: a misspelt one would otherwise pass as absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Checkpoint(_Closed):
    """Which weights ran."""

    name: str
    path: str
    sha256: str | None
    """Digest of all weights, the tokenizer and the configuration, `tensors:<hex>`. Older versions wrote hex digits
    alone, over both ends of the files; these agree with none of the new ones."""


class RunRecord(_Closed):
    """`record.json`: what produced a run's numbers.

    Of a run that another program started there is none. Then the toolkit's own files say what they can
    (`made_from`), and what they don't say is None or empty, never guessed.
    """

    version: Literal[1]
    system: str = Field(min_length=1)
    """Model card or method that the run belongs to, such as `vico`."""

    title: str = Field(min_length=1)
    """The row's title in a table."""

    command: tuple[str, ...]
    versions: dict[str, str | None]
    checkpoint: Checkpoint
    donor: Checkpoint | None
    """Where the low connector and the router came from, if not from the checkpoint."""

    method: str
    method_args: dict[str, Any]
    """With defaults filled in."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """How documents were asked: batch size, tile limits, frames, prompts."""

    dtype: str | None
    attention: str | None
    device: str | None
    num_processes: PositiveInt | None
    started: AwareDatetime | None
    """When the model was loaded; of a run without a record, when its toolkit began."""

    continued: tuple[AwareDatetime, ...] = ()
    """When it was loaded again, to go on in the same folder under the same conditions."""

    harness: str

    data_sets: dict[str, str] = Field(default_factory=dict)
    """By task, what its data are known by: a revision, or a digest of files. None of tasks whose data say neither, and
    of runs by older versions."""

    made_from: str | None = None
    """The toolkit's file that says this, relative to the run's folder, where the run left no record of its own."""

    previews: str | None = None
    """Folder of small copies of the documents' pictures, relative to the run's folder or absolute; None where the run
    kept none. Picture n of a request is `<media[:2]>/<media>-<n>.jpg`, by the account's `media`; of a video's frames
    only some are there."""

    left_out_until: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By task, stop strings that no answer ends at: the harness's few-shot delimiter, and in thinking mode all."""

    system_instruction: str | None = None
    """What the harness's `--system_instruction` says: the system message of every document."""

    @model_validator(mode="after")
    def _says_all_that_its_own_run_knew(self) -> "RunRecord":
        if self.made_from is None and (unknown := [name for name in _OF_OWN_RUNS if getattr(self, name) is None]):
            raise ValueError(f"{', '.join(unknown)} must not be null")
        return self

    @model_validator(mode="after")
    def _has_finite_numbers(self) -> "RunRecord":
        for name in ("method_args", "settings"):
            if not _is_finite(getattr(self, name)):
                raise ValueError(f"{name} holds a number that is not finite")
        return self


_OF_OWN_RUNS = ("dtype", "attention", "device", "num_processes", "started")


def _is_finite(value: object) -> bool:
    """Whether no number in `value` is NaN or infinite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


class TokenAccount(_Closed):
    """The tokens of one request, counted while it ran."""

    tiles: NonNegativeInt
    compressed_tiles: NonNegativeInt
    visual_tokens: NonNegativeInt
    visual_tokens_uncompressed: NonNegativeInt
    visual_tokens_per_layer: tuple[NonNegativeInt, ...]
    text_tokens: NonNegativeInt
    generated_tokens: NonNegativeInt
    p_compress: tuple[Probability, ...] | None = None

    media: str | None = None
    """Digest of the tiles; None where there is none, and in accounts that older versions wrote."""

    grids: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] | None = None
    """Columns, rows and tiles of each picture or frame, in the order of the tiles. One tile more than columns x rows is
    a thumbnail, the picture's last tile. None in accounts that older versions wrote."""

    compressed: tuple[NonNegativeInt, ...] | None = None
    """Places of the compressed tiles, ascending; None in accounts that older versions wrote."""

    @model_validator(mode="after")
    def _compressed_tiles_are_tiles(self) -> "TokenAccount":
        if self.compressed_tiles > self.tiles:
            raise ValueError(f"compressed_tiles={self.compressed_tiles} is more than tiles={self.tiles}")
        return self

    @property
    def mean_layer_tokens(self) -> float:
        """Visual tokens that a decoder layer saw, on average over the layers."""
        layers = self.visual_tokens_per_layer
        return sum(layers) / len(layers) if layers else float(self.visual_tokens)


class _DocumentLine(_Closed):
    task: str
    split: str
    doc_id: NonNegativeInt | str


class AnswerLine(_DocumentLine):
    """One line of `answers.rank*.jsonl`."""

    repeat: NonNegativeInt
    asked: str
    """Digests of generation settings and of the question's text, joined by `-`; older versions wrote one of both."""
    words: str | None = None
    files: str | None = None
    text: str
    account: TokenAccount


class FailureLine(_DocumentLine):
    """One line of `failures.rank*.jsonl`."""

    reason: str


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
    # Not splitlines(): it also breaks at characters such as U+2028 that may stand inside an answer.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line and not line.isspace():
            yield place_of(path, number), line


def place_of(path: Path, line: int) -> str:
    """How messages name a line of a file."""
    return f"{path}, line {line}"


def parse_object(text: str, place: str) -> dict[str, Any]:
    """The JSON object in `text`; `place` names it in the ReportError."""
    try:
        value = _parse(text)
    except json.JSONDecodeError as error:
        raise ReportError(
            f"{place} is not valid JSON ({error}). It may have been cut off when a run was stopped; repeat the run."
        ) from error
    if not isinstance(value, dict):
        raise ReportError(f"{place} holds a JSON {type(value).__name__}; expected an object.")
    return value


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


def read_record(folder: Path) -> RunRecord | None:
    """The record of the run in `folder`; None where it left none, since another program started it.

    Raises:
        ReportError: it doesn't fit the schema, or is of another version.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    value = read_json(path)
    if (version := value.get("version")) != RECORD_VERSION:
        raise ReportError(
            f"{path} is a record of version {version!r}; expected {RECORD_VERSION}. Another release of vico-eval wrote "
            "it: report the run with that release, or repeat it with this one."
        )
    return validate(RunRecord, value, str(path))


def read_failures(folder: Path) -> dict[DocumentKey, str]:
    """Why documents have no answer, by task and document: the last reason where one failed more than once.

    A document that was answered later is still among them.

    Raises:
        ReportError: a line of another schema.
    """
    failures = {}
    for path in sorted(folder.glob("failures.rank*.jsonl")):
        for place, text in read_lines(path):
            if (value := object_or_none(text)) is not None:
                line = validate(FailureLine, value, place)
                failures[line.task, line.doc_id] = line.reason
    return failures


def object_or_none(text: str) -> dict[str, Any] | None:
    """The JSON object in `text`; None where there is none, as in a line that was cut off."""
    try:
        value = _parse(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _parse(text: str) -> object:
    try:
        # Half the time of json's, which is most of reading a run; with a cache of texts it would be the same.
        return from_json(text, cache_strings="keys")
    except ValueError:
        return json.loads(text)  # takes half of a character too (a lone surrogate), and says where an error is


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        ReportError: it can't be read, or is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} can't be read: {error}.") from error
