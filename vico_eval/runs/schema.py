"""Closed schemas of the files that a run writes in addition to its toolkit's own.

`record.json` describes what produced the run's numbers. `answers.rank*.jsonl` and `failures.rank*.jsonl` have the
outcome of every document, one file per process. `request.json` has what `vico-eval run` was asked to do in the folder.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    Strict,
    model_validator,
)

from vico_eval.runs.costs import ModelCosts
from vico_eval.schemas import Closed

RECORD_NAME = "record.json"
REQUEST_NAME = "request.json"

VERSION: Final = 2
"""Version of the format. Runs of version 1 have no commits in their records and no selections in their accounts."""

VERSIONS = (1, 2)
"""Versions that can be read."""

LMMS_EVAL = "lmms-eval"
VLMEVALKIT = "VLMEvalKit"
"""Values of a record's `harness`."""

DocumentKey = tuple[str, int | str]
"""Task and doc_id, which is a number in lmms-eval and the row's index, possibly text, in VLMEvalKit."""

AnswerKey = tuple[str, int, str]
"""Key of the request, `task/split/number`; number of earlier requests for the document; digests of the generation
settings and of the question's text, joined by `-`."""

Time = Annotated[AwareDatetime, PlainSerializer(datetime.isoformat, when_used="json")]

Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
"""Seconds; numbers in strings are rejected, and the limit (30 years) keeps sums finite."""

Finish = Literal["stop", "length"]
"""Reason an answer ended: `stop` at an end-of-text token or stop string, `length` at the limit on new tokens, which
truncates it."""

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Checkpoint(Closed):
    """The weights that a run used."""

    name: str
    path: str
    sha256: str | None
    """Digest of all weights, the tokenizer and the configuration, `tensors:<hex>`. Older versions wrote only hex
    digits, computed over both ends of the files, which never equal a new digest."""


class RunRecord(Closed):
    """`record.json`: what produced a run's numbers.

    A run that another program started has none. The record is then built from the toolkit's own files (`made_from`);
    values missing there are None or empty, never guessed.
    """

    version: Literal[1, 2]
    system: str = Field(min_length=1)
    """Name of the model card or method, such as `vico`."""

    title: str = Field(min_length=1)
    """The row's title in a table."""

    command: tuple[str, ...]
    versions: dict[str, str | None]
    """Versions of this package, Python and the libraries that affect answers."""

    commits: tuple[str, ...] = ()
    """Git commits of the code, in the order in which the run was started and continued, with `-dirty` appended if files
    differed. Empty if this package was not a git checkout, and in records of version 1."""

    checkpoint: Checkpoint
    donor: Checkpoint | None
    """Checkpoint that supplied the low connector and the router, if not the main one."""

    method: str
    method_args: dict[str, Any]
    """Arguments of the method, including defaults."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Inference settings: batch size, tile limits, frames, prompts."""

    dtype: str | None
    attention: str | None
    device: str | None
    num_processes: PositiveInt | None
    started: Time | None
    """Time at which the model was loaded; for a run without a record, at which its toolkit started."""

    continued: tuple[Time, ...] = ()
    """Times at which a command continued the run under the same conditions, to answer remaining documents or to
    score."""

    harness: str

    data_sets: dict[str, str] = Field(default_factory=dict)
    """Fingerprint of each task's data: a revision or a digest of files. Tasks whose data have neither are missing, as
    are all tasks in runs by older versions."""

    scorers: dict[str, str] = Field(default_factory=dict)
    """Digest of the toolkit's scoring code, by task. Tasks that don't name that code are missing, as are all tasks in
    runs by older versions."""

    made_from: str | None = None
    """Toolkit file from which this record was built, relative to the run's folder, if the run has no record of its
    own."""

    previews: str | None = None
    """Folder of thumbnails of the documents' images, relative to the run's folder or absolute; None if the run kept
    none. Image n of a request is `<media[:2]>/<media>-<n>.jpg`, with the account's `media`; a video has only some of
    its frames."""

    left_out_until: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Stop strings that are ignored, by task: the harness's few-shot delimiter, and in thinking mode all."""

    answered_with: tuple[str, ...] = ()
    """Folders of the runs answered in the same pass, relative to this one. They share reading, tiling and encoding of
    images; answers are the same as without sharing."""

    costs: ModelCosts | None = None
    """Cost coefficients; None for models without a formula (experts, PVTC, LVTC), and in records from older
    versions."""

    engine: dict[str, Any] = Field(default_factory=dict)
    """The engine, if not transformers: vLLM's version and arguments, or the servers and the information they
    reported."""

    system_instruction: str | None = None
    """The harness's `--system_instruction`, used as the system message for every document."""

    @model_validator(mode="after")
    def _says_all_that_its_own_run_knew(self) -> "RunRecord":
        if self.made_from is None and (unknown := [name for name in _OF_OWN_RUNS if getattr(self, name) is None]):
            raise ValueError(f"{', '.join(unknown)} must not be null")
        return self

    @model_validator(mode="after")
    def _has_finite_numbers(self) -> "RunRecord":
        for name in ("method_args", "settings", "engine"):
            if not _is_finite(getattr(self, name)):
                raise ValueError(f"{name} holds a number that is not finite")
        return self

    @property
    def all_settings(self) -> dict[str, Any]:
        """The settings, with defaults for those that our runs record only if given."""
        return {"tiles": None, **({"engine": "transformers"} if self.made_from is None else {}), **self.settings}

    @property
    def source(self) -> str:
        """The file that this record was read from, relative to the run's folder."""
        return self.made_from or RECORD_NAME

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-compatible values, as written to disk."""
        return self.model_dump(mode="json", exclude={"made_from"})


_OF_OWN_RUNS = ("dtype", "attention", "device", "num_processes", "started")


def _is_finite(value: object) -> bool:
    """True if no number in `value` is NaN or infinite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


class TokenAccount(Closed):
    """Token counts of one request, taken while it ran. All reported ratios are computed from these counts."""

    tiles: NonNegativeInt = 0
    """Tiles of all images, including thumbnails and video frames; only for families with tiles."""

    compressed_tiles: NonNegativeInt = 0
    """Tiles that went through the low connector."""

    visual_tokens: NonNegativeInt
    """Visual tokens at the decoder's input."""

    visual_tokens_uncompressed: NonNegativeInt
    """Visual tokens if every tile had full length."""

    visual_tokens_per_layer: tuple[NonNegativeInt, ...]
    """Visual tokens that each decoder layer processes in prefill."""

    text_tokens: NonNegativeInt
    """Remaining prompt tokens, including chat markup."""

    generated_tokens: NonNegativeInt
    """Generated tokens, including end of text."""

    p_compress: tuple[Probability, ...] | None = None
    """The router's score for each tile; None without a router."""

    media: str | None = None
    """Digest of the tiles, equal for requests about the same images; None without tiles, and in accounts from older
    versions."""

    grids: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] | None = None
    """Columns, rows and tiles of each image or frame, in the order of the tiles. A tile in excess of columns x rows is
    a thumbnail, the image's last tile. None in accounts from older versions."""

    compressed: tuple[NonNegativeInt, ...] | None = None
    """Indices of the compressed tiles, ascending; None in accounts from older versions."""

    visual_tokens_before_selection: NonNegativeInt | None = None
    """Visual tokens from the connector before selection; None without selection."""

    merged_tokens: NonNegativeInt = 0
    """Tokens among visual_tokens that a selection merged from others."""

    finish: Finish | None = None
    """Reason the answer ended; None in accounts from older versions."""

    @model_validator(mode="after")
    def _compressed_tiles_are_tiles(self) -> "TokenAccount":
        if self.compressed_tiles > self.tiles:
            raise ValueError(f"compressed_tiles={self.compressed_tiles} is more than tiles={self.tiles}")
        return self

    @property
    def mean_layer_tokens(self) -> float:
        """Visual tokens per decoder layer, averaged over the layers."""
        layers = self.visual_tokens_per_layer
        return sum(layers) / len(layers) if layers else float(self.visual_tokens)

    def to_dict(self) -> dict[str, Any]:
        """The account as JSON-compatible values, as written to disk."""
        return self.model_dump(mode="json")


class StoredLine(Closed):
    """Fields of every journal line, which identify the document."""

    task: str
    split: str
    doc_id: NonNegativeInt | str
    """A number in lmms-eval; in VLMEvalKit the row's index, which may be text."""

    @property
    def document(self) -> str:
        """Key of the request, `task/split/number`."""
        return f"{self.task}/{self.split}/{self.doc_id}"


class AnswerSeconds(Closed):
    """Times of one answer in seconds, and the memory of its batch.

    A batch's time is divided evenly among its answers, so that sums over answers are right. A row by itself takes
    `encoding` plus `own`; a pass of several rows encodes once for all of them.
    """

    reading: Seconds
    """Reading and tiling its images, in a thread parallel to the model; once for all rows of a pass."""

    encoding: Seconds
    """The vision encoder on its tiles."""

    own: Seconds
    """Everything after the encoder: routing, connectors, selection, prefill and decoding."""

    prefill: Seconds | None = None
    """Part of `own` for the decoder up to the first token's logits, including a method's work between layers. None with
    vLLM, and in lines from older versions."""

    decode: Seconds | None = None
    """Part of `own` for the tokens after the first."""

    rows: Annotated[PositiveInt, Strict()] = 1
    """Number of rows that shared reading and encoding."""

    peak_bytes: Annotated[PositiveInt, Strict()] | None = None
    """Peak memory of tensors on the accelerators during `own`, including weights and what the rows of a pass share.
    None on a CPU, with vLLM, and in lines from older versions."""


class StoredAnswer(StoredLine):
    """One line of `answers.rank*.jsonl`: a document's answer and its cost."""

    repeat: NonNegativeInt
    """Number of earlier requests for the same document; some benchmarks score several answers per document."""

    asked: str
    """Digests of the generation settings and of the question's text, joined by `-`; older versions wrote a single
    digest of both."""

    words: str | None = None
    """Fingerprint of the request's whole text, and of the positions and tiling of its images. None in lines from older
    versions."""

    files: str | None = None
    """Fingerprint of paths, sizes and times of its images and videos, if all are files. It identifies an unchanged
    video without decoding it."""

    text: str
    seconds: AnswerSeconds | None = None
    """Times of the answer; None in lines from older versions."""

    account: TokenAccount

    @property
    def key(self) -> AnswerKey:
        """Lookup key of the answer: document, repeat and fingerprint of the request."""
        return self.document, self.repeat, self.asked


class StoredFailure(StoredLine):
    """One line of `failures.rank*.jsonl`: the reason a document has no answer."""

    reason: str


class RunRequest(Closed):
    """`request.json`: what `vico-eval run` was asked to do in a run's folder, and what that depends on."""

    version: Literal[1, 2] = VERSION
    arguments: tuple[str, ...]
    """lmms-eval's arguments, without its tasks."""

    versions: dict[str, str | None] | None
    """Versions, as in a record; None in files of version 1, where only the record has them."""

    checkpoints: dict[str, str] | None
    """Digests of the checkpoints' files, by name, including those of the run it takes its ratio from; a hub id has
    itself as digest. None in files of version 1."""

    cells: dict[str, str]
    """Fingerprint of the task files, by benchmark."""
