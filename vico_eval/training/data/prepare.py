"""Preparing a conversation for training: its tiles, its token ids, and a mask of the assistant's tokens.

Shapes: tiles = all tiles of the sample; S = side of a tile in px; N = token ids of the text, without visual tokens.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import ImageInput, Message, Request, Text, VideoInput
from vico_eval.errors import ConfigError
from vico_eval.families.family import SizeLimits
from vico_eval.families.internvl.prompting import InternVLPrompting
from vico_eval.training.data.reading.conversations import Conversation
from vico_eval.training.data.reading.corrupt import CorruptSample
from vico_eval.training.data.videos import Asked, with_random_frames

JPEG_QUALITIES = (75, 100)
"""Range of the JPEG quality for degraded tiles, inclusive."""

_FRAMES = zlib.crc32(b"frames")

_CHARACTERS_PER_TOKEN = 4


class Expanded(NamedTuple):
    """A sample's token ids, including its visual tokens."""

    input_ids: list[int]

    is_answer: np.ndarray
    """[len(input_ids)], bool: tokens that the model is trained to predict."""


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """A prepared conversation whose tiles are read but not yet given a number of visual tokens."""

    key: str

    tiles: np.ndarray
    """[tiles, S, S, 3], uint8, in the order of the text, with an image's thumbnail last. Without media [0, S, S, 3]."""

    tile_image: np.ndarray
    """[tiles], int64, ascending: the image that a tile belongs to; a video frame counts as an image."""

    tile_medium: np.ndarray
    """[tiles], int64, ascending: the image or video that a tile belongs to; all frames of a video share one number."""

    text_ids: list[int]
    """[N]: the whole conversation up to the end of its last turn, with `<img></img>` in place of each image."""

    image_positions: list[int]
    """The position of each image's `<img>` in `text_ids`."""

    is_answer: np.ndarray
    """[N], bool: the tokens of the assistant's turns, including the token that ends each turn."""

    image_token_id: int

    def expand(self, counts: Sequence[int]) -> Expanded:
        """Insert the given number of visual tokens for each tile.

        The result equals tokenising the text with the visual tokens written out.

        Args:
            counts: [tiles], in the order of `tiles`.
        """
        per_image = np.zeros(len(self.image_positions), dtype=np.int64)
        np.add.at(per_image, self.tile_image, np.asarray(counts, dtype=np.int64))
        behind_start = np.repeat(np.asarray(self.image_positions, dtype=np.int64) + 1, per_image)
        return Expanded(
            np.insert(np.asarray(self.text_ids), behind_start, self.image_token_id).tolist(),
            np.insert(self.is_answer, behind_start, False),
        )


class Prepare:
    """Reads, tiles and tokenises conversations as inference does. It is thread-safe."""

    def __init__(
        self,
        preprocessor: Preprocessor,
        *,
        max_length: int,
        tokens_per_tile: int,
        augment: bool = True,
        video_frames: tuple[int, int] | None = None,
    ) -> None:
        """Set up preparation for one checkpoint.

        Args:
            preprocessor: the checkpoint's preprocessor; its `max_tiles` applies if a source sets no limit.
            max_length: maximum number of tokens of a sample with every tile high.
            tokens_per_tile: number of visual tokens of a high tile.
            augment: whether to degrade samples of sources that ask for it; False for held-out samples.
            video_frames: minimum and maximum number of random frames of a video; None uses the frames of inference.

        Raises:
            ConfigError: the template's control tokens are not single tokens of the tokenizer.
        """
        self._preprocessor = preprocessor
        self._max_length = max_length
        self._tokens_per_tile = tokens_per_tile
        self._augment = augment
        self._video_frames = video_frames
        prompting = preprocessor.prompting
        assert isinstance(prompting, InternVLPrompting), "ViCO is trained on InternVL"
        self._prompting = prompting
        template = prompting.template
        marker, stop = (
            self._control_id(token) for token in (template.assistant_head.partition(">")[0] + ">", template.stop)
        )
        head = preprocessor.tokenise(template.assistant_head)
        self._head_ids = head[head.index(marker) :]  # without BOS
        self._stop_id = stop

    def __call__(self, conversation: Conversation, epoch: int) -> TrainingSample:
        """Prepare a sample; the epoch seeds the degradation of its tiles and the choice of video frames.

        Raises:
            CorruptSample: the sample is too long or an answer can't be located.
            MediaError: an image or a video can't be read.
        """
        asked = Asked(conversation.messages, ())
        if self._video_frames is not None:
            rng = np.random.default_rng([_FRAMES, *_seeds(conversation, epoch)])
            asked = with_random_frames(conversation.messages, *self._video_frames, rng)
        # An empty question after the last answer makes this a regular request, which ends with a user's turn.
        request = Request(
            conversation.key,
            (*asked.messages, Message("user", ())),
            max_tiles=self._max_tiles_each(conversation),
        )
        prompt = self._preprocessor(request)
        answers = self._answers(prompt.text_ids)
        if len(answers) != (expected := sum(message.role == "assistant" for message in conversation.messages)):
            raise CorruptSample("tokens", f"{len(answers)} of {expected} answers begin at a token boundary")
        text_ids = prompt.text_ids[: answers[-1].stop]
        tiles = self._prompting.tiles(prompt.pictures)
        length = len(text_ids) + self._tokens_per_tile * len(tiles)
        if length > self._max_length:
            raise CorruptSample(
                "too long",
                f"it has {length} tokens ({len(tiles)} tiles of {self._tokens_per_tile}); "
                f"max_length is {self._max_length}",
            )
        if conversation.augment and self._augment:
            rng = np.random.default_rng(_seeds(conversation, epoch))
            tiles = degrade_jpeg(tiles, rng)
        return TrainingSample(
            key=conversation.key,
            tiles=tiles,
            tile_image=prompt.piece_image,
            tile_medium=_media(conversation, asked.frames_of or prompt.frames_of)[prompt.piece_image],
            text_ids=text_ids,
            image_positions=prompt.slot_positions,
            is_answer=_marked(answers, len(text_ids)),
            image_token_id=self._preprocessor.image_token_id,
        )

    def estimate(self, conversation: Conversation) -> int:
        """Estimate the number of tokens with every tile high, without opening any media.

        This is the length stated in the data. Otherwise it is one token per four characters plus the tiles of the
        images: for their stated sizes, or the maximum number. InternVL's own estimate always takes the maximum.
        """
        if conversation.length is not None:
            return conversation.length
        parts = [part for message in conversation.messages for part in message.content]
        characters = sum(len(part.text) for part in parts if isinstance(part, Text))
        num_images = sum(isinstance(part, ImageInput) for part in parts)
        num_videos = sum(isinstance(part, VideoInput) for part in parts)
        tiles = num_videos * self._frames_each()
        if len(conversation.image_sizes) == num_images:
            tiles += sum(self._tiles_of(conversation, size) for size in conversation.image_sizes)
        else:
            tiles += num_images * self._tiles_of(conversation, None)
        return characters // _CHARACTERS_PER_TOKEN + tiles * self._tokens_per_tile

    def _answers(self, text_ids: list[int]) -> list[range]:
        """Return the range of each answer, from after the assistant's head to the end of its turn.

        The last head is excluded; it precedes an answer yet to be generated. Text can't imitate a head or an end,
        because the preprocessor tokenises control tokens in text as plain text.
        """
        head = self._head_ids
        places = (place for place, token in enumerate(text_ids) if token == head[0])
        starts = [place + len(head) for place in places if text_ids[place : place + len(head)] == head]
        return [range(start, text_ids.index(self._stop_id, start) + 1) for start in starts[:-1]]

    def _control_id(self, token: str) -> int:
        """Return the id of a control token, which is the last of its ids, because BOS may come first."""
        ids = self._preprocessor.tokenise(token)
        if ids[:-1] != self._preprocessor.tokenise(""):
            raise ConfigError(
                f"The tokenizer splits {token!r} of the template {self._prompting.settings.template}; expected a "
                "single token. Use the tokenizer of the checkpoint."
            )
        return ids[-1]

    def _tiles_of(self, conversation: Conversation, size: tuple[int, int] | None) -> int:
        limits = self._prompting.limits(SizeLimits(max_tiles=self._max_tiles_each(conversation)), 1)
        if size is None:
            return self._prompting.with_thumbnail(limits.max_tiles)
        return self._prompting.num_tiles(*size, limits)

    def _frames_each(self) -> int:
        """Return the number of frames of a video, or the mean number if it is drawn at random."""
        if self._video_frames is not None:
            return sum(self._video_frames) // 2
        return self._preprocessor.settings.num_frames or self._prompting.num_frames

    def _max_tiles_each(self, conversation: Conversation) -> int:
        """Return the maximum number of tiles per image, an equal share of the sample's, as in InternVL's training."""
        parts = (part for message in conversation.messages for part in message.content)
        num_images = sum(isinstance(part, ImageInput) for part in parts)
        total = conversation.max_tiles or self._preprocessor.settings.max_tiles or self._prompting.settings.max_tiles
        return max(1, total // max(1, num_images))


def _seeds(conversation: Conversation, epoch: int) -> list[int]:
    """Return the seeds of a sample's random draws in an epoch."""
    return [zlib.crc32(conversation.key.encode(errors="surrogatepass")), epoch]


def _media(conversation: Conversation, frames_of: Sequence[int]) -> np.ndarray:
    """Return the image or video that each image or frame belongs to, [images and frames], int64.

    Args:
        conversation: the conversation with its images and videos.
        frames_of: [videos], the number of frames of each.
    """
    parts = [part for message in conversation.messages for part in message.content if not isinstance(part, Text)]
    frames = iter(frames_of)
    sizes = [next(frames) if isinstance(part, VideoInput) else 1 for part in parts]
    return np.repeat(np.arange(len(parts)), np.array(sizes, dtype=np.int64))


def _marked(spans: Sequence[range], length: int) -> np.ndarray:
    """Return a mask, [length] bool, of the positions in any of `spans`."""
    is_inside = np.zeros(length, dtype=bool)
    for span in spans:
        is_inside[span.start : span.stop] = True
    return is_inside


def degrade_jpeg(tiles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Encode every tile as a JPEG of random quality and decode it again.

    Args:
        tiles: [tiles, S, S, 3], uint8.
        rng: draws a quality for each tile.

    Source: `build_transform` of InternVL's training code, which also draws a quality for each tile.
    """
    low, high = JPEG_QUALITIES
    degraded = []
    for tile, quality in zip(tiles, rng.integers(low, high + 1, len(tiles)).tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(tile).save(buffer, "JPEG", quality=quality)
        degraded.append(np.asarray(Image.open(buffer)))
    return np.stack(degraded) if degraded else tiles
