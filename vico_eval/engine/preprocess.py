"""Preprocessing of requests: images for the encoder, and the ids of the prompt.

The number of tokens per image is only known later. A request is therefore prepared first (images read and tiled, text
tokenized once), and its prompt is completed later by inserting runs of the image token into the ids of the text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from vico_eval.engine.films import Films
from vico_eval.engine.media import load_image
from vico_eval.engine.preprocess_settings import PreprocessSettings
from vico_eval.engine.requests import (
    DeferredRequest,
    GenerationSettings,
    ImageInput,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.engine.tile_limits import parse_grid
from vico_eval.engine.words import ControlTokens, Said
from vico_eval.errors import DOCUMENT_FAILURES, ConfigError, UserError
from vico_eval.families.family import Picture, Prompting, Shown, SizeLimits, Stand
from vico_eval.methods.interface import TileLimits

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

    from vico_eval.engine.previews import Previews
    from vico_eval.methods.interface import PixelPart, ResolutionPart


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared(Shown):
    """A request with its media read. Only the number of tokens per image is still unknown."""

    text: str
    """The conversation with the family's slot in the place of each image."""

    text_ids: list[int]
    """`text` in tokens, with BOS if the tokenizer has it: all ids of the prompt except image tokens."""

    slot_positions: list[int]
    """The position in `text_ids` at which each image's slot begins."""

    words: str
    """The user's text, one line per turn, without images, template and system message."""

    frames_of: tuple[int, ...]
    """Number of images that each `VideoInput` is shown as."""

    generation: GenerationSettings

    reading_s: float = 0.0
    """Time of reading and tiling."""


@dataclass(eq=False)
class _Media:
    """The images and frames of a request under one tiling."""

    resolution: ResolutionPart | PixelPart | None
    cut: list[Picture] = field(default_factory=list)
    """Of each, in order."""

    seconds: float = 0.0
    """Time of tiling."""

    error: Exception | None = None
    """The reason that they can't be tiled this way."""


@dataclass(eq=False)
class _Opened:
    """Metadata of a request's images and videos."""

    frames_of: list[int] = field(default_factory=list)
    """Number of images that each video is shown as."""

    stands: list[Stand] = field(default_factory=list)
    """Each video's text in a message."""

    previewed: dict[int, Image.Image] = field(default_factory=dict)
    """The images to make previews of, by number; empty if there are no previews."""

    num_pictures: int = 0


class Preprocessor:
    """Prepares requests. Thread-safe."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompting: Prompting,
        settings: PreprocessSettings | None = None,
        resolution: ResolutionPart | PixelPart | None = None,
    ) -> None:
        """
        Args:
            tokenizer: the checkpoint's.
            prompting: writes prompts and tiles images for the checkpoint's family.
            settings: deviations from the checkpoint's settings.
            resolution: decides how images are tiled.

        Raises:
            ConfigError: the tokenizer lacks a token of the family, the family has no thinking mode, or no image size is
                within the settings' limits.
        """
        self.settings = settings = PreprocessSettings() if settings is None else settings
        self.prompting = prompting
        self.previews: Previews | None = None
        """Where previews are written; None for no previews."""

        if settings.thinking and prompting.thinking_message is None and not prompting.always_thinks:
            raise ConfigError("Got thinking=true; these checkpoints have no thinking mode. Leave it out.")
        prompting.limits(SizeLimits(min_pixels=settings.min_pixels, max_pixels=settings.max_pixels), 1)
        self._resolution = resolution
        self._films = Films(prompting, settings.fps)
        self._tokenizer = tokenizer
        # A fast tokenizer keeps truncation and padding as state, which every call sets.
        self._tokenizer_lock = threading.Lock()
        vocabulary = tokenizer.get_vocab()
        self._slot = prompting.slot_ids(vocabulary)
        self.image_token_id = int(vocabulary[prompting.image_token])
        named = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token]
        self._control = ControlTokens([*prompting.control, *filter(None, named)], end=prompting.end)

    @property
    def tiling(self) -> str:
        """A key of the tiling apart from the settings, equal for parts with the same tiling."""
        return tiling_of(self._resolution)

    def __call__(self, request: Request | DeferredRequest) -> Prepared:
        """Read, tile and tokenize a request; a deferred one is created first.

        Raises:
            MediaError: an image or a video can't be read.
        """
        (only,) = self.each_cut(request, [self._resolution])
        if isinstance(only, Exception):
            raise only
        return only

    def each_cut(
        self, request: Request | DeferredRequest, resolutions: Sequence[ResolutionPart | PixelPart | None]
    ) -> list[Prepared | Exception]:
        """Prepare a request for each of several resolution parts, reading its media once; see `__call__`.

        Returns:
            One result per part of `resolutions`, in order, or the error of a part that can't tile the request.

        Raises:
            MediaError: an image or a video can't be read.
        """
        started = time.perf_counter()
        if isinstance(request, DeferredRequest):
            request = request.load()
        parts = [part for message in request.messages for part in message.content]
        num_images = sum(isinstance(part, ImageInput) and not part.is_frame for part in parts)
        ways = [_Media(resolution) for resolution in resolutions]
        opened = self._open(parts, request, num_images, ways)
        text = self._text(request, opened.stands, labelled=self.settings.label_images and num_images > 1)
        text_ids = self.tokenise(text)
        positions = self._slots(text_ids)
        if len(positions) != opened.num_pictures:
            raise ConfigError(
                f"The prompt of {request.key} has {len(positions)} placeholders for {opened.num_pictures} images: the "
                f"tokenizer does not keep {self.prompting.slot} as {len(self._slot.ids)} tokens. Use the tokenizer of "
                "the checkpoint."
            )
        shared = time.perf_counter() - started - sum(way.seconds for way in ways)
        prepared: list[Prepared | Exception] = []
        for way in ways:
            if way.error is not None:
                prepared.append(way.error)
                continue
            digest = _digest(way.cut)
            if self.previews is not None and digest is not None:
                self.previews.keep(digest, opened.previewed)
            prepared.append(
                Prepared(
                    key=request.key,
                    pictures=tuple(way.cut),
                    media=digest,
                    text=text,
                    text_ids=text_ids,
                    slot_positions=positions,
                    words=request.words,
                    frames_of=tuple(opened.frames_of),
                    generation=request.generation,
                    reading_s=shared + way.seconds,
                )
            )
        return prepared

    def _slots(self, ids: Sequence[int]) -> list[int]:
        """Return the positions at which slots begin."""
        slot = self._slot.ids
        return [place for place in range(len(ids)) if tuple(ids[place : place + len(slot)]) == slot]

    def prompt_ids(self, prepared: Prepared, tokens_per_picture: Sequence[int]) -> list[int]:
        """Return the ids of the whole prompt, given every image's number of tokens.

        They equal the ids of the text with all image tokens written out, without tokenizing thousands of them.

        Args:
            prepared: a request prepared by this preprocessor.
            tokens_per_picture: [pictures], visual tokens of each image or tile in the order of the prompt.
        """
        ids: list[int] = []
        done = 0
        for position, count in zip(prepared.slot_positions, tokens_per_picture, strict=True):
            ids += prepared.text_ids[done:position]
            ids += [*self._slot.before, *[self.image_token_id] * count, *self._slot.after]
            done = position + len(self._slot.ids)
        return ids + prepared.text_ids[done:]

    def _open(
        self,
        parts: Sequence[Text | ImageInput | VideoInput],
        request: Request,
        num_images: int,
        ways: Sequence[_Media],
    ) -> _Opened:
        """Open images one by one and tile each in every way, so that only one is in memory at a time."""
        settings, limits = self.settings, self._limits(request, num_images)
        keeps_copies = self.previews is not None
        opened = _Opened()
        for part in parts:
            if isinstance(part, ImageInput):
                image = load_image(part.source)
                if keeps_copies and part.is_previewed:
                    opened.previewed[opened.num_pictures] = image
                if part.is_frame:
                    self._add_frames([self.prompting.cut_frame(image)], ways)
                else:
                    self._add_image(image, limits, ways)
                opened.num_pictures += 1
            elif isinstance(part, VideoInput):
                film = self._films.read(part, part.num_frames or settings.num_frames, previewed=keeps_copies)
                opened.previewed.update(
                    {opened.num_pictures + number: frame for number, frame in film.previewed.items()}
                )
                self._add_frames(film.pictures, ways)
                opened.num_pictures += len(film.pictures)
                opened.frames_of.append(len(film.pictures))
                opened.stands.append(film.stand)
        return opened

    def _add_frames(self, frames: Sequence[Picture], ways: Sequence[_Media]) -> None:
        """Add frames, which are tiled alike by all parts."""
        for way in ways:
            way.cut += frames

    def _add_image(self, image: Image.Image, limits: Any, ways: Sequence[_Media]) -> None:
        for way in ways:
            if way.error is not None:
                continue
            started = time.perf_counter()
            try:
                way.cut.append(self.prompting.cut(image, limits, way.resolution))
            except (UserError, *DOCUMENT_FAILURES) as error:  # of one part; the other parts may still succeed
                way.error = error
            way.seconds += time.perf_counter() - started

    def _limits(self, request: Request, num_images: int) -> Any:
        settings = self.settings
        if settings.tiles is not None:
            return TileLimits.of_grid(*parse_grid(settings.tiles))
        asked = SizeLimits(
            **{name: getattr(request, name) or getattr(settings, name) for name in SizeLimits.__dataclass_fields__}
        )
        return self.prompting.limits(asked, num_images)

    def _text(self, request: Request, stands: Sequence[Stand], *, labelled: bool) -> str:
        settings = self.settings
        system = self.prompting.thinking_message if settings.thinking else settings.system_prompt
        turns: list[tuple[str, str]] = []
        image_number = 0
        videos = iter(stands)
        for message in request.messages:
            if message.role == "system":
                system = self._system_text(message) if system is None else system
                continue
            said = Said()
            for part in message.content:
                if isinstance(part, Text):
                    said.add(part.text, is_words=True)
                    continue
                if isinstance(part, VideoInput):
                    stand = next(videos)
                else:
                    image_number += not part.is_inline
                    number = image_number if labelled and not part.is_inline else None
                    stand = self.prompting.image(number, is_inline=part.is_inline)
                if stand.begins_line:
                    said.end_line()
                said.add(stand.text)
            turns.append((message.role, self._control.defuse(said)))
        system = self.prompting.system_message if system is None else system
        return self.prompting.render(turns, None if system is None else self.defuse(system))

    def _system_text(self, message: Message) -> str:
        return "".join(part.text for part in message.content if isinstance(part, Text))

    def defuse(self, text: str) -> str:
        """Return `text` with a space after the first character of every control token in it.

        Control tokens in a question would end the turn or stand for an image. Other special tokens (`<ref>`, `<box>`)
        are kept, because prompts of grounding tasks use them on purpose.
        """
        said = Said()
        said.add(text, is_words=True)
        return self._control.defuse(said)

    def tokenise(self, text: str) -> list[int]:
        """Tokenize a rendered conversation, with BOS if the tokenizer has it."""
        with self._tokenizer_lock:
            # As in InternVL's own code: with BOS if the tokenizer adds one (InternLM2, Llama 3). The engine checks the
            # model's length limit, so there is no truncation or warning here.
            ids: list[int] = self._tokenizer(text, truncation=False, verbose=False).input_ids
        return ids

    def word_ids(self, prepared: Prepared) -> list[int]:
        """Tokenize the user's text, without BOS."""
        words = self.defuse(prepared.words)
        with self._tokenizer_lock:
            ids: list[int] = self._tokenizer(words, truncation=False, verbose=False, add_special_tokens=False).input_ids
        return ids


def tiling_of(resolution: ResolutionPart | PixelPart | None) -> str:
    """Return a key that is equal for parts with the same tiling."""
    if resolution is None:
        return ""
    return f"{type(resolution).__module__}.{type(resolution).__name__} {resolution.config!r}"


def _digest(pictures: Sequence[Picture]) -> str | None:
    """Return the digest of all pieces in order; None without any."""
    digest = sha256()
    for picture in pictures:
        digest.update(picture.pieces.data)
    return digest.hexdigest()[:16] if pictures else None
