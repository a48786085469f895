"""Scenes of the built-in benchmark's generator as documents: tiles, ids, and labels of what the tiles show.

Several questions about one picture share its tokens and nothing else: each is a branch of its own behind them, at the
positions that it would have alone, so a document of four questions says the same as four documents. As turns of one
conversation the later ones could be answered by exclusion, and that is what a small model learns.

Shapes: T = tiles of a document; N = its ids, one image token a tile.
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
"""Label of a slot or cell that nothing is known about: those of a thumbnail."""

MAX_LENGTH = 1 << 20
"""Tokens of a document: a recipe limits its batches instead."""


class TokenizedDocument(NamedTuple):
    """One picture, several or a video with its questions, tokenised."""

    tiles: np.ndarray
    """[T, S, S, 3], uint8."""

    tile_image: np.ndarray
    """[T], int64: which of the document's images a tile belongs to."""

    input_ids: np.ndarray
    """[N], int64, one image token a tile."""

    is_answer: np.ndarray
    """[N], bool: tokens that the decoder is to predict, the end of each answer included."""

    branch: np.ndarray
    """[N], int64, ascending: 0 for what all questions share, from 1 the question that a token belongs to."""

    cells: np.ndarray
    """[T, h, w], int64: class of what each patch shows, `UNKNOWN` in thumbnails."""

    glyphs: np.ndarray
    """[T, h/2, w/2], int64: byte of the glyph in each slot, 0 for none, `UNKNOWN` in thumbnails."""


class DocumentMaker:
    """Makes documents for one model, each question as the prompt that evaluation uses."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: VicoInternVLConfig,
        resolution: ResolutionPart | PixelPart | None = None,
    ) -> None:
        """`resolution` says how images are cut; without one InternVL decides. Labels need whole tiles."""
        self.tokenizer = tokenizer
        self.config = config
        preprocessor = Preprocessor(tokenizer, InternVLPrompting(InternVLSettings.of(config)), resolution=resolution)
        self._prepare = Prepare(
            preprocessor, max_length=MAX_LENGTH, tokens_per_tile=config.num_high_tokens, augment=False
        )

    def __call__(self, scene: Scene, questions: Sequence[Question]) -> TokenizedDocument:
        """A scene and some of its questions, at least one."""
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
    """Labels of all images' tiles, [tiles, side, side]."""
    return np.concatenate([_per_tile(grid, side, count) for grid, count in zip(grids, counts, strict=True)])


def _per_tile(grid: np.ndarray, side: int, num_tiles: int) -> np.ndarray:
    """[rows*side, columns*side] -> [tiles, side, side], with an unknown thumbnail where the image has one."""
    rows, columns = grid.shape[0] // side, grid.shape[1] // side
    tiles = grid.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side, side).astype(np.int64)
    if num_tiles > len(tiles):
        tiles = np.concatenate([tiles, np.full((1, side, side), UNKNOWN)])
    return tiles
