"""From a request to tiles and to the ids of its prompt.

How many tokens a tile takes is known only after routing, so a request is prepared first (images read and tiled, text
tokenised once) and its prompt finished later by putting runs of the image token between the ids of the text.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from vico_eval.engine.frame_folders import is_folder, read_frame_folder
from vico_eval.engine.media import load_image, read_frames
from vico_eval.engine.previews import previewed_frames
from vico_eval.engine.requests import (
    DeferredRequest,
    GenerationSettings,
    ImageInput,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.engine.words import ControlTokens, Said
from vico_eval.errors import ConfigError, DocumentError
from vico_eval.families.internvl.prompts import (
    IMAGE_END,
    IMAGE_START,
    IMAGE_TOKEN,
    THINKING_SYSTEM_MESSAGE,
    get_template,
)
from vico_eval.families.internvl.tiling import TiledImage, tile_image
from vico_eval.methods.parts import TilingSettings

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

    from vico_eval.engine.previews import Previews
    from vico_eval.families.internvl.config import VicoInternVLConfig
    from vico_eval.methods.parts import TilingPart

AnyRequest = TypeVar("AnyRequest", bound=Request | DeferredRequest)

# Stands for an image in a prepared text. Both tokens are control tokens that no user text can contain (`defuse`).
_SLOT = IMAGE_START + IMAGE_END

MOST = 4096
"""Tiles and frames that a setting may name. More are a slip of the finger: only to list the grids takes minutes."""


@dataclass(frozen=True, kw_only=True)
class PreprocessSettings:
    """How images, videos and messages become tiles and text."""

    tile_size: int = 448
    """Side of a tile in px."""

    min_tiles: int = 1

    max_tiles: int = 12
    """Tiles an image may have, thumbnail not counted, where the request names no limit."""

    use_thumbnail: bool = True

    total_max_tiles: int | None = None
    """Tiles that the images of one request share, where the request names no total: each gets total // images, at
    least 1, as in VLMEvalKit. None is no limit."""

    num_frames: int = 64
    """Frames of a video, one tile each."""

    label_images: bool = True
    """Whether several images are introduced as `Image-1: `; otherwise they stand without words."""

    template: str = "internvl2_5"
    """Name of the conversation template."""

    system_message: str | None = None
    """The checkpoint's; None takes the template's own. A request's own system message wins over it."""

    system_prompt: str | None = None
    """The user's; wins over every other system message."""

    thinking: bool = False
    """Whether InternVL3.5 is told to think before it answers."""

    def __post_init__(self) -> None:
        for name in ("tile_size", "min_tiles", "max_tiles", "num_frames", "total_max_tiles"):
            value = getattr(self, name)
            is_open = name == "total_max_tiles" and value is None
            if not is_open and (type(value) is not int or not 1 <= value <= MOST):
                raise ConfigError(f"Got {name}={value!r}; expected a whole number from 1 to {MOST}.")
        if self.thinking and self.system_prompt is not None:
            raise ConfigError(
                "Got both thinking and system_prompt; thinking is a system prompt of its own. Leave one of them out."
            )
        get_template(self.template)

    @classmethod
    def from_config(cls, config: VicoInternVLConfig, **overrides: Any) -> PreprocessSettings:
        """A checkpoint's settings, with those of `overrides` that are not None in their place.

        Raises:
            ConfigError: an unknown setting (the message lists the known ones) or a value outside its range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in overrides if name not in known]:
            raise ConfigError(f"Unknown setting {', '.join(map(repr, unknown))}; known are {', '.join(known)}.")
        own = ("tile_size", "min_tiles", "max_tiles", "use_thumbnail", "num_frames", "template", "system_message")
        given = {name: value for name, value in overrides.items() if value is not None}
        return cls(**{**{name: getattr(config, name) for name in own}, **given})


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request whose media are read: everything about it but the number of tokens its tiles take."""

    key: str

    tiles: np.ndarray
    """[tiles, S, S, 3], uint8, in the order of the prompt; an image's thumbnail last. No media: [0, S, S, 3]."""

    tile_digests: tuple[bytes, ...]
    """[tiles], by which equal tiles are known."""

    tile_image: np.ndarray
    """[tiles], int64, ascending: which image of the request a tile belongs to; a video frame is an image."""

    grids: tuple[tuple[int, int, int], ...]
    """Columns, rows and tiles of each image or frame; a tile more than columns x rows is the thumbnail."""

    media: str | None
    """Digest of `tiles`, by which requests about the same pictures are known; None where there is no tile."""

    text: str
    """The conversation with `<img></img>` where an image goes."""

    text_ids: list[int]
    """`text` in tokens, BOS first where the tokenizer has it: every id of the prompt that is not an image token."""

    image_positions: list[int]
    """Where in `text_ids` each image's `<img>` is."""

    generation: GenerationSettings


class _Media(NamedTuple):
    """The images and frames of a request."""

    cut: list[TiledImage]
    """Of each, in order."""

    frames_of: list[int]
    """How many frames each video has."""

    previewed: dict[int, Image.Image]
    """By number, those of which a small copy is kept; they are held only where any are."""


class Preprocessor:
    """Prepares requests; one object may serve many threads."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: PreprocessSettings, tiling: TilingPart | None = None
    ) -> None:
        """A `tiling` part cuts images its own way; without one they are cut as InternVL does.

        Raises:
            ConfigError: the tokenizer has no single token for `<img>`, `</img>` or `<IMG_CONTEXT>`.
        """
        self.settings = settings
        self.previews: Previews | None = None
        """Where small copies of the pictures go; None keeps none."""

        self._cut = tile_by_ratio if tiling is None else tiling.tile
        self.template = get_template(settings.template)
        self._tokenizer = tokenizer
        # A fast tokenizer keeps truncation and padding as state that every call sets anew.
        self._tokenizer_lock = threading.Lock()
        vocabulary = tokenizer.get_vocab()
        if missing := [token for token in (IMAGE_START, IMAGE_END, IMAGE_TOKEN) if token not in vocabulary]:
            raise ConfigError(
                f"The tokenizer has no token {', '.join(missing)}; expected the tokenizer of an InternVL checkpoint."
            )
        self._start_id, self._end_id = int(vocabulary[IMAGE_START]), int(vocabulary[IMAGE_END])
        self.image_token_id = int(vocabulary[IMAGE_TOKEN])
        named = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token]
        control = [IMAGE_START, IMAGE_END, IMAGE_TOKEN, *self.template.markers, *filter(None, named)]
        self._control = ControlTokens(control, end=self.template.end)

    def __call__(self, request: Request | DeferredRequest) -> Prepared:
        """Reads, tiles and tokenises what a request holds; a deferred one is made first.

        Raises:
            MediaError: an image or a video can't be read.
        """
        if isinstance(request, DeferredRequest):
            request = request.load()
        parts = [part for message in request.messages for part in message.content]
        num_images = sum(isinstance(part, ImageInput) for part in parts)
        media = self._media(parts, request, num_images)
        text = self._text(request, media.frames_of, labelled=self.settings.label_images and num_images > 1)
        text_ids = self.tokenise(text)
        positions = [
            position for position, pair in enumerate(pairwise(text_ids)) if pair == (self._start_id, self._end_id)
        ]
        if len(positions) != len(media.cut):
            raise ConfigError(
                f"The prompt of {request.key} has {len(positions)} places for {len(media.cut)} images: the "
                f"tokenizer does not keep {_SLOT} as two tokens. Use the tokenizer of the checkpoint."
            )
        size = self.settings.tile_size
        tiles = np.concatenate([np.zeros((0, size, size, 3), dtype=np.uint8), *(one.tiles for one in media.cut)])
        grids = tuple(one.grid for one in media.cut)
        digest = sha256(tiles.data).hexdigest()[:16] if len(tiles) else None
        if self.previews is not None and digest is not None:
            self.previews.keep(digest, media.previewed)
        return Prepared(
            key=request.key,
            tiles=tiles,
            tile_digests=tuple(sha256(tile.data).digest() for tile in tiles),
            tile_image=np.repeat(np.arange(len(grids)), [count for *_, count in grids]).astype(np.int64),
            grids=grids,
            media=digest,
            text=text,
            text_ids=text_ids,
            image_positions=positions,
            generation=request.generation,
        )

    def prompt_ids(self, prepared: Prepared, tokens_per_tile: Sequence[int]) -> list[int]:
        """The ids of the whole prompt, once routing has given every tile its length.

        The same ids as of the text with `<IMG_CONTEXT>` written out, without tokenising thousands of them.

        Args:
            prepared: by this preprocessor.
            tokens_per_tile: [tiles], visual tokens of each tile in the order of `prepared.tiles`.
        """
        counts = [0] * len(prepared.image_positions)
        for image, tokens in zip(prepared.tile_image.tolist(), tokens_per_tile, strict=True):
            counts[image] += int(tokens)
        ids: list[int] = []
        done = 0
        for position, count in zip(prepared.image_positions, counts, strict=True):
            ids += prepared.text_ids[done : position + 1]
            ids += [self.image_token_id] * count
            done = position + 1
        return ids + prepared.text_ids[done:]

    def _cutting(self, request: Request, num_images: int) -> TilingSettings:
        """How each image of a request with so many of them is cut."""
        settings = self.settings
        max_tiles = request.max_tiles or settings.max_tiles
        total_max_tiles = request.total_max_tiles or settings.total_max_tiles
        if total_max_tiles is not None and num_images:
            max_tiles = max(1, min(max_tiles, total_max_tiles // num_images))
        return TilingSettings(
            tile_size=settings.tile_size,
            min_tiles=min(settings.min_tiles, max_tiles),
            max_tiles=max_tiles,
            use_thumbnail=settings.use_thumbnail,
        )

    def _media(self, parts: Sequence[Text | ImageInput | VideoInput], request: Request, num_images: int) -> _Media:
        settings = self.settings
        size = settings.tile_size
        cutting = self._cutting(request, num_images)
        keeps_copies = self.previews is not None
        media = _Media([], [], {})
        for part in parts:
            if isinstance(part, ImageInput):
                image = load_image(part.source)
                if keeps_copies and part.is_previewed:
                    media.previewed[len(media.cut)] = image
                media.cut.append(self._cut(image, cutting))
            elif isinstance(part, VideoInput):
                frames = _frames(part, settings.num_frames)
                if keeps_copies:
                    media.previewed.update(
                        {len(media.cut) + frame: frames[frame] for frame in previewed_frames(len(frames))}
                    )
                media.cut.extend(tile_image(frame, max_tiles=1, tile_size=size) for frame in frames)
                media.frames_of.append(len(frames))
        return media

    def _text(self, request: Request, frames_of: Sequence[int], *, labelled: bool) -> str:
        settings = self.settings
        system = THINKING_SYSTEM_MESSAGE if settings.thinking else settings.system_prompt
        turns: list[tuple[str, str]] = []
        image_number = 0
        videos = iter(frames_of)
        for message in request.messages:
            if message.role == "system":
                system = self._system_text(message) if system is None else system
                continue
            said = Said()
            for part in message.content:
                if isinstance(part, Text):
                    said.add(part.text, is_words=True)
                elif isinstance(part, VideoInput):
                    said.end_line()
                    said.add("".join(f"Frame{number}: {_SLOT}\n" for number in range(1, next(videos) + 1)))
                elif part.is_inline:
                    said.add(_SLOT)
                elif labelled:
                    image_number += 1
                    said.end_line()
                    said.add(f"Image-{image_number}: {_SLOT}\n")
                else:
                    said.add(f"{_SLOT}\n")
            turns.append((message.role, self._control.defuse(said)))
        system = settings.system_message if system is None else system
        return self.template.render(turns, None if system is None else self.defuse(system))

    def _system_text(self, message: Message) -> str:
        return "".join(part.text for part in message.content if isinstance(part, Text))

    def defuse(self, text: str) -> str:
        """`text` with a space after the first character of every control token in it.

        Such words would otherwise end a turn or take the place of an image. Other special tokens (`<ref>`, `<box>`)
        are left alone, because prompts of grounding tasks use them on purpose.
        """
        said = Said()
        said.add(text, is_words=True)
        return self._control.defuse(said)

    def tokenise(self, text: str) -> list[int]:
        """The ids of a rendered conversation, BOS first where the tokenizer has it; nothing is taken apart."""
        with self._tokenizer_lock:
            # As InternVL's own code asks for it: with BOS where the tokenizer begins with one (InternLM2, Llama 3).
            # The model's own limit on length is the engine's business: no truncation, no warning.
            ids: list[int] = self._tokenizer(text, truncation=False, verbose=False).input_ids
        return ids


def tile_by_ratio(image: Image.Image, settings: TilingSettings) -> TiledImage:
    """InternVL's own tiling of an RGB image."""
    return tile_image(
        image,
        min_tiles=settings.min_tiles,
        max_tiles=settings.max_tiles,
        tile_size=settings.tile_size,
        use_thumbnail=settings.use_thumbnail,
    )


def prepare_ahead(
    prepare: Callable[[AnyRequest], Prepared],
    requests: Iterable[AnyRequest],
    *,
    workers: int = 2,
    ahead: int | None = None,
) -> Iterator[Prepared | DocumentError]:
    """Prepared requests in their order, with threads reading ahead of whoever consumes them.

    In the place of a request that could not be prepared, whatever the reason, is the error that names it.

    Args:
        prepare: a `Preprocessor`.
        requests: read no further than the requests ahead.
        workers: threads.
        ahead: how many requests may be prepared or waiting at once, so that memory stays bounded; twice the workers
            by default.
    """
    limit = 2 * workers if ahead is None else ahead
    pending: deque[tuple[str, Future[Prepared]]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="prepare") as pool:
        try:
            for request in requests:
                pending.append((request.key, pool.submit(prepare, request)))
                if len(pending) >= limit:
                    yield _result(*pending.popleft())
            while pending:
                yield _result(*pending.popleft())
        finally:
            for _, future in pending:
                future.cancel()


def _result(key: str, future: Future[Prepared]) -> Prepared | DocumentError:
    if (error := future.exception()) is not None:
        failure = DocumentError(f"document {key} can't be prepared: {str(error) or type(error).__name__}")
        failure.__cause__ = error
        return failure
    return future.result()


def _frames(video: VideoInput, num_frames: int) -> list[Image.Image]:
    """The frames of a film that are shown; a film may also be a folder of frames."""
    read = read_frame_folder if is_folder(video.source) else read_frames
    return read(video.source, num_frames, start_s=video.start_s, end_s=video.end_s)
