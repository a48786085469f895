"""From a conversation to what a model is trained on: tiles, ids, and which ids the assistant says.

Shapes: tiles = all tiles of the sample; S = side of a tile in px; N = ids of the text, no visual token among them.
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
"""Of the degradation, both included."""

_FRAMES = zlib.crc32(b"frames")

_CHARACTERS_PER_TOKEN = 4


class Expanded(NamedTuple):
    """A sample's ids with its visual tokens."""

    input_ids: list[int]

    is_answer: np.ndarray
    """[len(input_ids)], bool: ids that the model is to predict."""


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """A conversation whose pictures are read; everything but the number of tokens its tiles take."""

    key: str

    tiles: np.ndarray
    """[tiles, S, S, 3], uint8, in the order of the text; an image's thumbnail last. No media: [0, S, S, 3]."""

    tile_image: np.ndarray
    """[tiles], int64, ascending: which image a tile belongs to; a video frame is an image."""

    tile_medium: np.ndarray
    """[tiles], int64, ascending: which image or video a tile belongs to; all frames of a video are one's."""

    text_ids: list[int]
    """[N]: the whole conversation up to the end of its last turn, `<img></img>` where an image goes."""

    image_positions: list[int]
    """Where in `text_ids` each image's `<img>` is."""

    is_answer: np.ndarray
    """[N], bool: tokens that a turn of the assistant says, the one that ends it included."""

    image_token_id: int

    def expand(self, counts: Sequence[int]) -> Expanded:
        """The ids with so many visual tokens for each tile, the same as of the text with them written out.

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
    """Reads, tiles and tokenises conversations as inference does; one object may serve many threads."""

    def __init__(
        self,
        preprocessor: Preprocessor,
        *,
        max_length: int,
        tokens_per_tile: int,
        augment: bool = True,
        video_frames: tuple[int, int] | None = None,
    ) -> None:
        """For one checkpoint.

        Args:
            preprocessor: of the checkpoint; its `max_tiles` holds where a source has no limit.
            max_length: tokens that a sample may have with every tile high.
            tokens_per_tile: visual tokens of a high tile.
            augment: whether sources that ask for it are degraded; not where held-out samples are measured.
            video_frames: fewest and most random frames of a video; None shows those of inference.

        Raises:
            ConfigError: the template's control tokens are no tokens of the tokenizer.
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
        """The sample in that epoch, which decides how its tiles are degraded and which frames of videos it shows.

        Raises:
            CorruptSample: it is too long, or has no answer.
            MediaError: an image or a video can't be read.
        """
        asked = Asked(conversation.messages, ())
        if self._video_frames is not None:
            rng = np.random.default_rng([_FRAMES, *_seeds(conversation, epoch)])
            asked = with_random_frames(conversation.messages, *self._video_frames, rng)
        # Behind the last answer stands an empty question, so that what is tokenised is a request as any other.
        request = Request(
            conversation.key,
            (*asked.messages, Message("user", ())),
            max_tiles=self._max_tiles_each(conversation),
        )
        prompt = self._preprocessor(request)
        answers = self._answers(prompt.text_ids)
        if len(answers) != (expected := sum(message.role == "assistant" for message in conversation.messages)):
            raise CorruptSample("tokens", f"{len(answers)} of {expected} answers begin where a token does")
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
        """About how many tokens it has with every tile high, without opening a picture.

        What the data states; else a token for every four characters, and the tiles of its images' stated sizes, or as
        many as an image may have. InternVL's own estimate takes the most tiles for every image.
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
        """Where each answer stands: from behind a head of the assistant to the end of its turn.

        The last head is that of an answer to come. Words can't forge a head or an end: the preprocessor takes control
        tokens in them apart.
        """
        head = self._head_ids
        places = (place for place, token in enumerate(text_ids) if token == head[0])
        starts = [place + len(head) for place in places if text_ids[place : place + len(head)] == head]
        return [range(start, text_ids.index(self._stop_id, start) + 1) for start in starts[:-1]]

    def _control_id(self, token: str) -> int:
        """The id of a control token: the last of its ids, as BOS may come first."""
        ids = self._preprocessor.tokenise(token)
        if ids[:-1] != self._preprocessor.tokenise(""):
            raise ConfigError(
                f"The tokenizer takes {token!r} of the template {self._prompting.settings.template} apart; expected "
                "one token. Use the tokenizer of the checkpoint."
            )
        return ids[-1]

    def _tiles_of(self, conversation: Conversation, size: tuple[int, int] | None) -> int:
        limits = self._prompting.limits(SizeLimits(max_tiles=self._max_tiles_each(conversation)), 1)
        if size is None:
            return self._prompting.with_thumbnail(limits.max_tiles)
        return self._prompting.num_tiles(*size, limits)

    def _frames_each(self) -> int:
        """Of a video; the mean where they are drawn."""
        if self._video_frames is not None:
            return sum(self._video_frames) // 2
        return self._preprocessor.settings.num_frames or self._prompting.num_frames

    def _max_tiles_each(self, conversation: Conversation) -> int:
        """Tiles that each image may have: an equal share of the sample's, as in InternVL's training."""
        parts = (part for message in conversation.messages for part in message.content)
        num_images = sum(isinstance(part, ImageInput) for part in parts)
        total = conversation.max_tiles or self._preprocessor.settings.max_tiles or self._prompting.settings.max_tiles
        return max(1, total // max(1, num_images))


def _seeds(conversation: Conversation, epoch: int) -> list[int]:
    """Of what is drawn about a sample in an epoch."""
    return [zlib.crc32(conversation.key.encode(errors="surrogatepass")), epoch]


def _media(conversation: Conversation, frames_of: Sequence[int]) -> np.ndarray:
    """[images and frames], int64: which image or video each is or is a frame of.

    Args:
        conversation: with its images and videos.
        frames_of: [videos].
    """
    parts = [part for message in conversation.messages for part in message.content if not isinstance(part, Text)]
    frames = iter(frames_of)
    sizes = [next(frames) if isinstance(part, VideoInput) else 1 for part in parts]
    return np.repeat(np.arange(len(parts)), np.array(sizes, dtype=np.int64))


def _marked(spans: Sequence[range], length: int) -> np.ndarray:
    """[length], bool: what stands in one of `spans`."""
    is_inside = np.zeros(length, dtype=bool)
    for span in spans:
        is_inside[span.start : span.stop] = True
    return is_inside


def degrade_jpeg(tiles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every tile saved as a JPEG of random quality and read again.

    Args:
        tiles: [tiles, S, S, 3], uint8.
        rng: draws a quality for each tile.

    Source: `build_transform` of InternVL's training code, which also draws one for each tile.
    """
    low, high = JPEG_QUALITIES
    degraded = []
    for tile, quality in zip(tiles, rng.integers(low, high + 1, len(tiles)).tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(tile).save(buffer, "JPEG", quality=quality)
        degraded.append(np.asarray(Image.open(buffer)))
    return np.stack(degraded) if degraded else tiles
