"""What a run leaves beside lmms-eval's own files: record, answers with accounts, and failures, as closed schemas."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

RECORD_NAME = "record.json"
RECORD_VERSION = 1

LMMS_EVAL = "lmms-eval"
VLMEVALKIT = "VLMEvalKit"
"""A record's `harness`."""

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
