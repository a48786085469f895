"""Scenes of the built-in benchmark's generator as tokenised documents, with labels of what their tiles show.

Several questions about one scene share its visual tokens and nothing else. Each is a separate branch after them, at the
positions that it would have alone, so a document with four questions is equivalent to four documents. As turns of one
conversation, later questions could be answered by exclusion, and a small model would learn that instead.

Shapes: T = tiles of a document; N = its token ids, with one image token per tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import ImageInput, Message, Text
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.methods.interface import PixelPart, ResolutionPart
from vico_eval.tiny.scenes import Question, Scene
from vico_eval.training.data.prepare import Prepare
from vico_eval.training.data.reading.conversations import Conversation

NO_GLYPH = 0
UNKNOWN = -1
"""The label of slots and cells without a known class, which are those of thumbnails."""

MAX_LENGTH = 1 << 20
"""A limit on a document's tokens that is never reached; recipes limit batches instead."""


class TokenizedDocument(NamedTuple):
    """A tokenised scene (one image, several images or a video) with its questions."""

    tiles: np.ndarray
    """[T, S, S, 3], uint8."""

    tile_image: np.ndarray
    """[T], int64: the image of the document that a tile belongs to."""

    input_ids: np.ndarray
    """[N], int64, with one image token per tile."""

    is_answer: np.ndarray
    """[N], bool: tokens that the decoder must predict, including the end of each answer."""

    branch: np.ndarray
    """[N], int64, ascending: 0 for tokens that all questions share, otherwise the 1-based number of the question."""

    cells: np.ndarray
    """[T, h, w], int64: the class of what each patch shows, `UNKNOWN` in thumbnails."""

    glyphs: np.ndarray
    """[T, h/2, w/2], int64: the byte of the glyph in each slot, 0 for none, `UNKNOWN` in thumbnails."""


class DocumentMaker:
    """Makes documents for one model, with the prompts of evaluation."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: VicoInternVLConfig,
        resolution: ResolutionPart | PixelPart | None = None,
    ) -> None:
        """`resolution` divides images into tiles, by default as InternVL does. Labels need scenes of whole tiles."""
        self.tokenizer = tokenizer
        self.config = config
        preprocessor = Preprocessor(tokenizer, InternVLPrompting(InternVLSettings.of(config)), resolution=resolution)
        self._prepare = Prepare(
            preprocessor, max_length=MAX_LENGTH, tokens_per_tile=config.num_high_tokens, augment=False
        )

    def __call__(self, scene: Scene, questions: Sequence[Question]) -> TokenizedDocument:
        """Make a document from a scene and one or more of its questions."""
        ids: list[int] = []
        is_answer: list[bool] = []
        branch: list[int] = []
        for number, question in enumerate(questions, start=1):
            sample = self._prepare(self._conversation(scene, question), 0)
            own = sample.expand([1] * len(sample.tiles))
            # Everything up to the last tile is shared.
            shared = len(own.input_ids) - own.input_ids[::-1].index(sample.image_token_id)
            start = 0 if number == 1 else shared
            ids += own.input_ids[start:]
            is_answer += own.is_answer[start:].tolist()
            branch += [0] * (shared - start) + [number] * (len(own.input_ids) - shared)
        counts = np.bincount(sample.tile_image).tolist()
        side = self.config.vit_grid
        return TokenizedDocument(
            tiles=sample.tiles,
            tile_image=sample.tile_image,
            input_ids=np.asarray(ids, dtype=np.int64),
            is_answer=np.asarray(is_answer, dtype=bool),
            branch=np.asarray(branch, dtype=np.int64),
            cells=_labels(scene.cells, side, counts),
            glyphs=_labels(scene.glyph_slots, side // 2, counts),
        )

    def _conversation(self, scene: Scene, question: Question) -> Conversation:
        asked: list[Text | ImageInput] = []
        if scene.is_video:
            for number, frame in enumerate(scene.images, start=1):
                asked += [Text(f"Frame{number}: "), ImageInput(frame, is_inline=True), Text("\n")]
        else:
            asked += map(ImageInput, scene.images)
        asked.append(Text(question.text))
        each = 1 if scene.is_video else self.config.max_tiles
        return Conversation(
            key=scene.task,
            messages=(Message("user", tuple(asked)), Message("assistant", (Text(question.answer),))),
            max_tiles=each * len(scene.images),
        )


def _labels(grids: Sequence[np.ndarray], side: int, counts: Sequence[int]) -> np.ndarray:
    """Return the labels of all images' tiles, [tiles, side, side]."""
    return np.concatenate([_per_tile(grid, side, count) for grid, count in zip(grids, counts, strict=True)])


def _per_tile(grid: np.ndarray, side: int, num_tiles: int) -> np.ndarray:
    """Divide an image's labels into tiles, [rows*side, columns*side] -> [tiles, side, side], with unknown labels for a
    thumbnail."""
    rows, columns = grid.shape[0] // side, grid.shape[1] // side
    tiles = grid.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side, side).astype(np.int64)
    if num_tiles > len(tiles):
        tiles = np.concatenate([tiles, np.full((1, side, side), UNKNOWN)])
    return tiles
