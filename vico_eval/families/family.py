"""The contract of a family: what the engine asks of one kind of checkpoint.

A family is three things. `Family` finds and loads a checkpoint. `Prompting` needs no weights: it writes conversations
and cuts pictures, in threads that read ahead. `FamilyModel` is the loaded model: it sees (pictures to visual tokens,
with what parts of a method may know of them) and decodes. Nothing outside a family knows how many pieces a picture has,
or how its encoder lays out tokens.

Shapes: pieces = what the encoder takes as one, a tile or a whole image; n = visual tokens of a request; D = decoder
width; C = vision width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from vico_eval.errors import CheckpointError
from vico_eval.families.decoder.prompt_decoder import PromptDecoder
from vico_eval.families.frame_choice import Clip

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from vico_eval.methods.interface import (
        ConnectorPart,
        ModelFacts,
        PixelPart,
        ResolutionPart,
        SelectionPart,
        VisualTokens,
    )


MOST = 4096
"""Tiles and frames that a setting may name. More are a slip of the finger: only to list the grids takes minutes."""

MOST_PIXELS = 2**30
"""Of an image, that a setting may name."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image or video frame, cut for the encoder."""

    pieces: np.ndarray
    """[pieces, ...], uint8. Where a family cuts tiles, [pieces, height, width, 3]: a grid's tiles row by row, then the
    thumbnail if there is one."""

    columns: int
    rows: int
    """Of the grid of tiles, where a piece more than columns x rows is the thumbnail; else of visual tokens."""

    digests: tuple[bytes, ...]
    """[pieces]: equal pieces have equal ones."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Columns, rows and pieces."""
        return self.columns, self.rows, len(self.pieces)


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """The pictures of one request, in the order of the prompt."""

    key: str

    pictures: tuple[Picture, ...]

    media: str | None
    """Digest of all pieces, by which requests about the same pictures are known; None where there is none."""

    @property
    def grids(self) -> tuple[tuple[int, int, int], ...]:
        """Columns, rows and pieces of each picture."""
        return tuple(picture.grid for picture in self.pictures)

    @property
    def num_pieces(self) -> int:
        """Of all pictures."""
        return sum(len(picture.pieces) for picture in self.pictures)

    @property
    def piece_image(self) -> np.ndarray:
        """[pieces], int64: index of the picture that each one is of."""
        counts = [len(picture.pieces) for picture in self.pictures]
        return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


class Slot(NamedTuple):
    """The ids that stand for a picture in a prepared prompt, and those that its visual tokens are put between."""

    ids: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SizeLimits:
    """How large images may be by what the caller and the benchmark say; None leaves it to the checkpoint.

    A family takes those that mean something to it.
    """

    max_tiles: int | None = None
    """Of an image, thumbnail not counted."""

    total_max_tiles: int | None = None
    """That the images of a request share."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Of an image, where a family resizes each to the encoder's patches."""


class Stand(NamedTuple):
    """What stands in a message for a picture or a film."""

    text: str
    begins_line: bool = False


class Strip(NamedTuple):
    """A film as a model is shown it."""

    pictures: list[Picture]
    """One for each slot of the text."""

    stand: Stand


class Prompting(ABC):
    """How a family writes prompts and cuts pictures."""

    image_token: str
    """Stands for one visual token."""

    slot: str
    """Stands for a picture in a prepared text; made of control tokens, which nobody's words can contain."""

    control: tuple[str, ...]
    """Tokens that shape a prompt, and would forge it in somebody's words."""

    end: str
    """What stands behind every message."""

    stop: str
    """Token with which an answer ends."""

    system_message: str | None = None
    """The checkpoint's own; None takes what `render` puts there by itself."""

    thinking_message: str | None = None
    """System message under which the model thinks first; None where it can't."""

    always_thinks: bool = False
    """Whether the template has the model think first, whatever is asked."""

    @abstractmethod
    def render(self, turns: Sequence[tuple[str, str]], system: str | None) -> str:
        """The conversation of (role, text) up to where the assistant is to answer."""

    @abstractmethod
    def slot_ids(self, vocabulary: Mapping[str, int]) -> Slot:
        """`slot` in ids.

        Raises:
            ConfigError: the tokenizer lacks one of its tokens.
        """

    @abstractmethod
    def image(self, number: int | None, *, is_inline: bool = False) -> Stand:
        """What stands for an image.

        Args:
            number: of the image where several are to be introduced, from 1; None otherwise.
            is_inline: whether it stands in the words as they are.
        """

    @abstractmethod
    def limits(self, asked: SizeLimits, num_images: int) -> Any:
        """Limits of each image of a request with so many of them, as `cut` takes them."""

    @abstractmethod
    def cut(self, image: Image.Image, limits: Any, resolution: ResolutionPart | PixelPart | None) -> Picture:
        """An RGB image for the encoder; where the limits have a grid, cut into that one, whatever the image's shape."""

    @abstractmethod
    def cut_frame(self, frame: Image.Image) -> Picture:
        """An RGB frame of a video for the encoder, which stands in a prompt as an image does."""

    @abstractmethod
    def choose_frames(
        self,
        total: int,
        fps: float | None,
        num_frames: int | None,
        rate: float | None = None,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> list[int]:
        """Which frames of a video are shown, ascending.

        Args:
            total: frames of the video.
            fps: their rate; None where nothing states it.
            num_frames: that somebody asks for; None leaves it to `rate` or the checkpoint.
            rate: frames a second that somebody asks for, of a family that shows videos so; None leaves it to the
                checkpoint.
            first: number of the first frame of the stretch to take them from.
            last: number of its last frame, included; None is the end.
        """

    @abstractmethod
    def show(self, clip: Clip) -> Strip:
        """The chosen frames of a video for the encoder, and what stands for them in a message.

        Raises:
            MediaError: a video that the encoder can't take.
        """


class FamilyCheckpoint(Protocol):
    """A checkpoint on disk whose files are complete."""

    @property
    def name(self) -> str:
        """As the user gave it."""

    @property
    def folder(self) -> Path:
        """Where its files are."""

    @property
    def facts(self) -> ModelFacts:
        """What parts of a method may know of it."""

    @property
    def dtype(self) -> torch.dtype | None:
        """That its weights are kept in, where its configuration says."""

    def identity(self) -> dict[str, str]:
        """Name, folder (`path`) and digest (`sha256`) of all that decides an answer."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a model computes; `vico_eval.families.placement` checks it."""

    dtype: str
    device: str | None
    device_map: str | None
    attn_implementation: str


class Family(ABC):
    """One kind of checkpoint: how it is found, prompted and loaded, without code from outside."""

    needs_positions: str | None = None
    """Why a prompt's embeddings alone are not enough to decode it, so that no other program can; None where they
    are."""

    @abstractmethod
    def find(self, pretrained: str, *, allow_pickle: bool) -> FamilyCheckpoint:
        """The checkpoint of a folder, a built-in name or a hub id, without loading weights.

        Raises:
            CheckpointError: there is none, or it is incomplete or of another kind.
        """

    @abstractmethod
    def tokenizer(self, checkpoint: Any) -> PreTrainedTokenizerBase:
        """The checkpoint's; raises CheckpointError if there is none or it doesn't fit."""

    @abstractmethod
    def prompting(self, checkpoint: Any) -> Prompting:
        """How the checkpoint wants prompts and pictures."""

    @abstractmethod
    def load(
        self, checkpoint: Any, placement: Placement, image_token_id: int, *, with_decoder: bool = True
    ) -> FamilyModel:
        """The model with its weights, in evaluation mode.

        Args:
            with_decoder: whether it is to decode; otherwise it sees and embeds, and has no layers that it won't use.

        Raises:
            CheckpointError: weights that are missing, unexpected or of another shape, named.
            ConfigError: a placement that this machine can't do.
        """

    def decoder_folder(self, checkpoint: Any) -> Path:
        """The checkpoint's decoder as a plain folder, as other programs load it; made where it is not there yet.

        Raises:
            CheckpointError: the decoder is none that others have.
        """
        raise CheckpointError("the decoder of this family of checkpoints can't be had by itself")

    def adopt(self, model: Any, donor: Any, *, routes: bool) -> None:
        """Give a model the parts of a second checkpoint, for methods that need them (`Part.needs_donor`).

        Raises:
            CheckpointError: the family has no such parts, or they don't fit.
        """
        raise CheckpointError("this family of checkpoints gives no parts to others")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the engine wants to know of pictures, the same for all requests."""

    connector: ConnectorPart | None = None
    selection: SelectionPart | None = None
    vit_tokens: bool = False
    """Whether the encoder's tokens are kept for a part in the decoder."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SeenTiles:
    """What became of a request's tiles, where a family has some."""

    counts: list[int]
    """[tiles]: visual tokens of each, before any selection."""

    compressed: list[bool]
    """[tiles]: whether it takes fewer than a tile can."""

    p_compress: list[float] | None
    """[tiles]: the router's scores, where the method has it score tiles."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """The visual tokens of one request."""

    tokens: Tensor
    """[n, D], in the order of the prompt."""

    per_image: list[int]
    """[pictures]: how many of them are each one's."""

    uncompressed: int
    """How many there would be without any method."""

    visual: VisualTokens | None = None
    """What a selection part may see; None where there is none."""

    tiles: SeenTiles | None = None
    vit_tokens: Tensor | None = None
    """[tiles, 1 + h*w, C], where the look wants them."""

    added: Tensor | None = None
    """[features, n, D]: what is added to the tokens behind each of the decoder's first layers (DeepStack)."""


class Sight(ABC):
    """From pictures to visual tokens, for one `Look`."""

    @abstractmethod
    def __call__(self, batch: Sequence[Shown]) -> list[Seen]:
        """What is seen of each request's pictures; all of the batch are encoded together, each is decided on alone.

        Raises:
            FloatingPointError: scores that are NaN or infinite; names the documents.
        """

    saved_s: float = 0.0
    """What the last call would have taken longer, in seconds, had no other sight been asked about the batch before."""

    def encode(self, batch: Sequence[Shown]) -> float:
        """Do ahead of `__call__` what sights of one model share: encode the pictures of a batch, once for all of them.

        Returns:
            What that took, in seconds, whichever of them had it done; 0 where nothing is shared.
        """
        return 0.0

    def forget(self) -> None:  # noqa: B027
        """Let go of what is kept from batch to batch, for its memory."""


class FamilyModel(PromptDecoder):
    """A loaded model: it sees, and it decodes (`PromptDecoder`)."""

    @abstractmethod
    def sights(self, looks: Sequence[Look]) -> list[Sight]:
        """What turns pictures into visual tokens, for each look. They are asked about a batch one after the other."""
