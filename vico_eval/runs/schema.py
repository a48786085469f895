"""What a run leaves on disk beside its toolkit's own files, as closed schemas, one for each kind of file.

`record.json`: what produced the run's numbers. `answers.rank*.jsonl` and `failures.rank*.jsonl`: what became of every
document, a file a process. `request.json`: what `vico-eval run` was to do in the folder.
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
"""Of the format. Runs of version 1 have no commits in their records and no selections in their accounts."""

VERSIONS = (1, 2)
"""Those that are read."""

LMMS_EVAL = "lmms-eval"
VLMEVALKIT = "VLMEvalKit"
"""A record's `harness`."""

DocumentKey = tuple[str, int | str]
"""Task and doc_id: a number in lmms-eval; VLMEvalKit's index of a row, which may hold words."""

AnswerKey = tuple[str, int, str]
"""Key of the request, `task/split/number`; how many times it had been asked before; digests of the generation settings
and of the question's text, joined by `-`."""

Time = Annotated[AwareDatetime, PlainSerializer(datetime.isoformat, when_used="json")]

Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
"""Numbers as text are refused; the limit (30 years) keeps sums finite."""

Finish = Literal["stop", "length"]
"""Why an answer ended: at an end of text or a stop string, or at the limit on new tokens, which truncates it."""

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Checkpoint(Closed):
    """Which weights ran."""

    name: str
    path: str
    sha256: str | None
    """Digest of all weights, the tokenizer and the configuration, `tensors:<hex>`. Older versions wrote hex digits
    alone, over both ends of the files; these agree with none of the new ones."""


class RunRecord(Closed):
    """`record.json`: what produced a run's numbers.

    Of a run that another program started there is none. Then the toolkit's own files say what they can
    (`made_from`), and what they don't say is None or empty, never guessed.
    """

    version: Literal[1, 2]
    system: str = Field(min_length=1)
    """Model card or method that the run belongs to, such as `vico`."""

    title: str = Field(min_length=1)
    """The row's title in a table."""

    command: tuple[str, ...]
    versions: dict[str, str | None]
    """Of this package, of Python and of the libraries that decide an answer."""

    commits: tuple[str, ...] = ()
    """Git commits of the code that answered, in the order in which the run was started and continued; one ends with
    `-dirty` where files differed from it. Empty where this package was no checkout, and in records of version 1."""

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
    started: Time | None
    """When the model was loaded; of a run without a record, when its toolkit began."""

    continued: tuple[Time, ...] = ()
    """When a command went on in the same folder under the same conditions: to answer what was left, or to score."""

    harness: str

    data_sets: dict[str, str] = Field(default_factory=dict)
    """By task, what its data are known by: a revision, or a digest of files. None of tasks whose data say neither, and
    of runs by older versions."""

    scorers: dict[str, str] = Field(default_factory=dict)
    """By task, a digest of the toolkit's code that scores it. None of tasks that don't say which that is, and of runs
    by older versions."""

    made_from: str | None = None
    """The toolkit's file that says this, relative to the run's folder, where the run left no record of its own."""

    previews: str | None = None
    """Folder of small copies of the documents' pictures, relative to the run's folder or absolute; None where the run
    kept none. Picture n of a request is `<media[:2]>/<media>-<n>.jpg`, by the account's `media`; of a video's frames
    only some are there."""

    left_out_until: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By task, stop strings that no answer ends at: the harness's few-shot delimiter, and in thinking mode all."""

    answered_with: tuple[str, ...] = ()
    """Folders of the runs that were answered in the same pass, relative to this one's: their rows share
    reading, cutting and encoding of pictures. Answers are those of a run alone."""

    costs: ModelCosts | None = None
    """None of models without a formula (experts, PVTC, LVTC), and in records of older versions."""

    engine: dict[str, Any] = Field(default_factory=dict)
    """What decoded, where that was not transformers: vLLM's version, its arguments, or the servers and what they said
    of themselves."""

    system_instruction: str | None = None
    """What the harness's `--system_instruction` says: the system message of every document."""

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
        """The settings, with those that a run of ours records only where they are given."""
        return {"tiles": None, **({"engine": "transformers"} if self.made_from is None else {}), **self.settings}

    @property
    def source(self) -> str:
        """The file that says this, relative to the run's folder."""
        return self.made_from or RECORD_NAME

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and words, as they are written to disk."""
        return self.model_dump(mode="json", exclude={"made_from"})


_OF_OWN_RUNS = ("dtype", "attention", "device", "num_processes", "started")


def _is_finite(value: object) -> bool:
    """Whether no number in `value` is NaN or infinite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


class TokenAccount(Closed):
    """The tokens of one request, counted while it ran. Every ratio that is reported comes from these counts."""

    tiles: NonNegativeInt = 0
    """Tiles of all its images, thumbnails and frames included; a detail of families that have tiles."""

    compressed_tiles: NonNegativeInt = 0
    """Those that went through the low connector."""

    visual_tokens: NonNegativeInt
    """Visual tokens at the decoder's input."""

    visual_tokens_uncompressed: NonNegativeInt
    """What they would be with every tile at full length."""

    visual_tokens_per_layer: tuple[NonNegativeInt, ...]
    """Visual tokens that each decoder layer works on in prefill."""

    text_tokens: NonNegativeInt
    """The rest of the prompt, chat markup included."""

    generated_tokens: NonNegativeInt
    """End of text included."""

    p_compress: tuple[Probability, ...] | None = None
    """The router's score of every tile, where there is one."""

    media: str | None = None
    """Digest of the tiles, the same for requests about the same pictures; None where there is no tile, and in accounts
    that older versions wrote."""

    grids: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] | None = None
    """Columns, rows and tiles of each picture or frame, in the order of the tiles. One tile more than columns x rows is
    a thumbnail, the picture's last tile. None in accounts that older versions wrote."""

    compressed: tuple[NonNegativeInt, ...] | None = None
    """Places of the compressed tiles, ascending; None in accounts that older versions wrote."""

    visual_tokens_before_selection: NonNegativeInt | None = None
    """Visual tokens that the connector made, where a selection then took some out; None where no selection acted."""

    merged_tokens: NonNegativeInt = 0
    """Those of visual_tokens that a selection made out of others."""

    finish: Finish | None = None
    """Why the answer ended; None in accounts that older versions wrote."""

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

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as they are written to disk."""
        return self.model_dump(mode="json")


class StoredLine(Closed):
    """What every line of a journal says: which document it is about."""

    task: str
    split: str
    doc_id: NonNegativeInt | str
    """A number in lmms-eval; the row's index in VLMEvalKit, which may hold words."""

    @property
    def document(self) -> str:
        """The key of its request, `task/split/number`."""
        return f"{self.task}/{self.split}/{self.doc_id}"


class AnswerSeconds(Closed):
    """What one answer took, in seconds: its even share of what its batch took, so that sums over answers are right.

    And the memory of its batch.

    A row alone takes `encoding` and `own`; in a pass of several rows, encoding is there once for all of them.
    """

    reading: Seconds
    """Its pictures read and cut, in a thread beside the model; in a pass once for all rows."""

    encoding: Seconds
    """Its tiles through the vision encoder."""

    own: Seconds
    """All that follows: routing, connectors, selection, prefill and decoding."""

    prefill: Seconds | None = None
    """Of `own`, the decoder up to the first token's logits, with what a method does between its layers. None where
    vLLM decodes, and in lines of older versions."""

    decode: Seconds | None = None
    """Of `own`, the tokens behind the first."""

    rows: Annotated[PositiveInt, Strict()] = 1
    """How many rows reading and encoding were for."""

    peak_bytes: Annotated[PositiveInt, Strict()] | None = None
    """The most that tensors took on the accelerators during `own`, weights included, and what rows of a pass share.
    None on a CPU, where vLLM decodes, and in lines of older versions."""


class StoredAnswer(StoredLine):
    """One line of `answers.rank*.jsonl`: what was said to a document, and what it cost."""

    repeat: NonNegativeInt
    """How many times the same document had been asked before; benchmarks may count passes among many answers."""

    asked: str
    """Digests of the settings that the answer was generated with, and of the question's text, joined by `-`; older
    versions wrote one of both."""

    words: str | None = None
    """Fingerprint of all words of the request, and of how its pictures stand in them and are cut. None in lines of
    older versions."""

    files: str | None = None
    """Fingerprint of paths, sizes and times of its pictures and films, where all are files; a film that is still the
    same by it need not be decoded to be known."""

    text: str
    seconds: AnswerSeconds | None = None
    """What it took; None in lines of older versions."""

    account: TokenAccount

    @property
    def key(self) -> AnswerKey:
        """As an answer is looked for: document, repeat and fingerprint of what was asked."""
        return self.document, self.repeat, self.asked


class StoredFailure(StoredLine):
    """One line of `failures.rank*.jsonl`: why a document has no answer."""

    reason: str


class RunRequest(Closed):
    """`request.json`: what `vico-eval run` was to do in a run's folder, and what that depended on."""

    version: Literal[1, 2] = VERSION
    arguments: tuple[str, ...]
    """Those of lmms-eval, less its tasks."""

    versions: dict[str, str | None] | None
    """As a record's; None in files of version 1, beside which the record has them."""

    checkpoints: dict[str, str] | None
    """Digests of the checkpoints' files by name, those of the run that it draws on included; a hub id stands for
    itself. None in files of version 1."""

    cells: dict[str, str]
    """By benchmark, a fingerprint of the files of its tasks."""
