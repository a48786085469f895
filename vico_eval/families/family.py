"""The interface of a family: everything that the engine needs of a kind of checkpoint.

A family has three parts. `Family` finds and loads a checkpoint. `Prompting` needs no weights: it writes conversations
and divides images into pieces, in threads that read ahead. `FamilyModel` is the loaded model: it computes visual tokens
of images, with the information that methods need, and decodes. Nothing outside a family depends on the number of pieces
per image or on the encoder's token layout.

Shapes: pieces = inputs of the encoder, tiles or whole images; n = visual tokens of a request; D = decoder
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
"""Maximum number of tiles and frames in a setting. More are a typing error: listing the grids alone would take
minutes."""

MOST_PIXELS = 2**30
"""Maximum number of pixels of an image in a setting."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image or video frame, divided into pieces for the encoder."""

    pieces: np.ndarray
    """[pieces, ...], uint8. For families with tiles, [pieces, height, width, 3]: the grid's tiles row by row, then the
    thumbnail if there is one."""

    columns: int
    rows: int
    """Columns of the grid of tiles, in which a piece beyond columns x rows is the thumbnail; otherwise of visual
    tokens."""

    digests: tuple[bytes, ...]
    """[pieces]: digests, equal for equal pieces."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Columns, rows and pieces."""
        return self.columns, self.rows, len(self.pieces)


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """The images of a request, in the order of the prompt."""

    key: str

    pictures: tuple[Picture, ...]

    media: str | None
    """Digest of all pieces, which identifies requests about the same images; None without images."""

    @property
    def grids(self) -> tuple[tuple[int, int, int], ...]:
        """Columns, rows and pieces of each image."""
        return tuple(picture.grid for picture in self.pictures)

    @property
    def num_pieces(self) -> int:
        """The number of pieces of all images."""
        return sum(len(picture.pieces) for picture in self.pictures)

    @property
    def piece_image(self) -> np.ndarray:
        """[pieces], int64: index of each piece's image."""
        counts = [len(picture.pieces) for picture in self.pictures]
        return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


class Slot(NamedTuple):
    """The ids that stand for an image in a prepared prompt, and those around its visual tokens."""

    ids: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SizeLimits:
    """Limits on an image's size from the caller and the benchmark; None uses the checkpoint's.

    A family uses the limits that apply to it.
    """

    max_tiles: int | None = None
    """Maximum number of tiles per image, without the thumbnail."""

    total_max_tiles: int | None = None
    """Maximum number of tiles of all images of a request."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Limit on an image's pixels, for families that resize images to the encoder's patches."""


class Stand(NamedTuple):
    """The text of an image or video in a message."""

    text: str
    begins_line: bool = False


class Strip(NamedTuple):
    """A video as a model sees it."""

    pictures: list[Picture]
    """One image or frame per slot of the text."""

    stand: Stand


class Prompting(ABC):
    """How a family writes prompts and divides images into pieces."""

    image_token: str
    """The token that stands for one visual token."""

    slot: str
    """The text that stands for an image in a prepared prompt, made of control tokens, which user text can't contain."""

    control: tuple[str, ...]
    """Tokens that structure a prompt, which user text must not contain."""

    end: str
    """The end of every message."""

    stop: str
    """The token that ends an answer."""

    system_message: str | None = None
    """The checkpoint's system message; None uses the default of `render`."""

    thinking_message: str | None = None
    """System message of thinking mode; None without it."""

    always_thinks: bool = False
    """Whether the template always makes the model think first."""

    @abstractmethod
    def render(self, turns: Sequence[tuple[str, str]], system: str | None) -> str:
        """Return the conversation of (role, text) up to the assistant's answer."""

    @abstractmethod
    def slot_ids(self, vocabulary: Mapping[str, int]) -> Slot:
        """Return `slot` in ids.

        Raises:
            ConfigError: the tokenizer lacks a token of the slot.
        """

    @abstractmethod
    def image(self, number: int | None, *, is_inline: bool = False) -> Stand:
        """Return the text of an image.

        Args:
            number: the image's number, from 1, if several images are labelled; otherwise None.
            is_inline: whether the image is inline in the text.
        """

    @abstractmethod
    def limits(self, asked: SizeLimits, num_images: int) -> Any:
        """Return the limits of each image of a request with this many images, for `cut`."""

    @abstractmethod
    def cut(self, image: Image.Image, limits: Any, resolution: ResolutionPart | PixelPart | None) -> Picture:
        """Divide an RGB image into pieces for the encoder. A grid in the limits applies regardless of the aspect
        ratio."""

    @abstractmethod
    def cut_frame(self, frame: Image.Image) -> Picture:
        """Divide an RGB video frame for the encoder, which appears in a prompt like an image."""

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
        """Return the numbers of the frames of a video to show, ascending.

        Args:
            total: number of frames of the video.
            fps: frame rate; None if unknown.
            num_frames: requested number of frames; None uses `rate` or the checkpoint's choice.
            rate: requested frames per second, for families that sample by rate; None uses the checkpoint's.
            first: first frame of the interval.
            last: last frame of the interval, inclusive; None is the end.
        """

    @abstractmethod
    def show(self, clip: Clip) -> Strip:
        """Return the selected frames of a video for the encoder, and their text in a message.

        Raises:
            MediaError: the encoder doesn't support the video.
        """


class FamilyCheckpoint(Protocol):
    """A checkpoint on disk whose files are complete."""

    @property
    def name(self) -> str:
        """The name given by the user."""

    @property
    def folder(self) -> Path:
        """The folder of its files."""

    @property
    def facts(self) -> ModelFacts:
        """The checkpoint's facts for parts of methods."""

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of its weights, if the configuration states it."""

    def identity(self) -> dict[str, str]:
        """Return name, folder (`path`) and digest (`sha256`) of everything that affects answers."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Device, dtype and attention kernel of a model, checked by `vico_eval.families.placement`."""

    dtype: str
    device: str | None
    device_map: str | None
    attn_implementation: str


class Family(ABC):
    """A kind of checkpoint: how it is found, prompted and loaded, without remote code."""

    needs_positions: str | None = None
    """Why decoding needs more than a prompt's embeddings, so that other programs can't do it; None if it doesn't."""

    @abstractmethod
    def find(self, pretrained: str, *, allow_pickle: bool) -> FamilyCheckpoint:
        """Find the checkpoint of a folder, a built-in name or a hub id, without loading weights.

        Raises:
            CheckpointError: it is missing, incomplete or of another kind.
        """

    @abstractmethod
    def tokenizer(self, checkpoint: Any) -> PreTrainedTokenizerBase:
        """Return the checkpoint's tokenizer. Raises CheckpointError if it is missing or doesn't match."""

    @abstractmethod
    def prompting(self, checkpoint: Any) -> Prompting:
        """Return the checkpoint's prompting."""

    @abstractmethod
    def load(
        self, checkpoint: Any, placement: Placement, image_token_id: int, *, with_decoder: bool = True
    ) -> FamilyModel:
        """Load the model with its weights, in evaluation mode.

        Args:
            with_decoder: load the decoder's layers; otherwise the model only computes visual tokens and embeddings.

        Raises:
            CheckpointError: weights are missing, unexpected or of another shape; the message names them.
            ConfigError: this machine doesn't support the placement.
        """

    def decoder_folder(self, checkpoint: Any) -> Path:
        """Return a folder with the checkpoint's decoder for other programs, which is created if missing.

        Raises:
            CheckpointError: other programs don't support the decoder.
        """
        raise CheckpointError("this family's decoder can't be exported for other programs")

    def adopt(self, model: Any, donor: Any, *, routes: bool) -> None:
        """Add the parts of a second checkpoint to a model, for methods that need them (`Part.needs_donor`).

        Raises:
            CheckpointError: the family has no such parts, or they don't match.
        """
        raise CheckpointError("checkpoints of this family have no parts for other checkpoints")


@dataclass(frozen=True, kw_only=True)
class Look:
    """The information about images that the engine needs, the same for all requests."""

    connector: ConnectorPart | None = None
    selection: SelectionPart | None = None
    vit_tokens: bool = False
    """Whether the encoder's tokens are kept for a decoder part."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SeenTiles:
    """The routing of a request's tiles, if the family has tiles."""

    counts: list[int]
    """[tiles]: visual tokens of each tile, before any selection."""

    compressed: list[bool]
    """[tiles]: whether the tile has fewer visual tokens than an uncompressed one."""

    p_compress: list[float] | None
    """[tiles]: the router's scores, if the method uses it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """The visual tokens of a request."""

    tokens: Tensor
    """[n, D], in the order of the prompt."""

    per_image: list[int]
    """[pictures]: number of tokens of each image."""

    uncompressed: int
    """The number of tokens without any method."""

    visual: VisualTokens | None = None
    """The input of a selection part; None without one."""

    tiles: SeenTiles | None = None
    vit_tokens: Tensor | None = None
    """[tiles, 1 + h*w, C], if the look needs them."""

    added: Tensor | None = None
    """[features, n, D]: added to the tokens after each of the decoder's first layers (DeepStack)."""


class Sight(ABC):
    """Computes visual tokens of images, for one `Look`."""

    @abstractmethod
    def __call__(self, batch: Sequence[Shown]) -> list[Seen]:
        """Return the visual tokens of each request. All images of a batch are encoded together, but each request is
        routed separately.

        Raises:
            FloatingPointError: scores are NaN or infinite; the message names the documents.
        """

    saved_s: float = 0.0
    """Additional seconds that the last call would have taken without the work of other sights on the batch."""

    def encode(self, batch: Sequence[Shown]) -> float:
        """Encode the images of a batch before `__call__`, once for all sights of a model.

        Returns:
            The time of encoding in seconds, whichever sight did it; 0 if nothing is shared.
        """
        return 0.0

    def forget(self) -> None:  # noqa: B027
        """Release memory that is kept between batches."""


class FamilyModel(PromptDecoder):
    """A loaded model, which computes visual tokens and decodes (`PromptDecoder`)."""

    @abstractmethod
    def sights(self, looks: Sequence[Look]) -> list[Sight]:
        """Return a sight for each look. They process a batch one after the other."""
