"""Documents of the built-in benchmark's generator as training batches, made on the fly.

A batch is a pure function of the recipe's seed, a stage's name and a step, so that a stage can be repeated or resumed
anywhere. In a document's ids every tile is one `<IMG_CONTEXT>`; `Batch.expand` repeats it once the routing is known.

Several questions about one picture share its tokens and nothing else: each is a branch of its own behind them, at the
positions that it would have alone, so a document of four questions says the same as four documents. As turns of one
conversation the later ones could be answered by exclusion, and that is what a small model learns.

Shapes: docs = documents of a batch, each with T tiles; tiles = all their tiles; N = ids before expansion.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.preprocess import tile_by_ratio
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.prompts import IMAGE_MARK, IMAGE_TOKEN, build_prompt, get_template
from vico_eval.methods.parts import TilingPart, TilingSettings
from vico_eval.tiny.scenes import COMPARE_GRIDS, GRIDS, TASKS, Question, Scene, make_scene

T = TypeVar("T")

WORKERS = 1
"""Processes that make batches ahead, for each process that trains."""

NO_GLYPH = 0
UNKNOWN = -1
"""Label of a slot or cell that nothing is known about: those of a thumbnail."""

IMAGE_TASKS = tuple(task for task in TASKS if task not in ("compare", "video"))
LOOKUP = ("read", "doc", "colour")
"""Tasks of one step: what the question names is looked up, and what stands beside it or how it looks is the answer."""

SMALL_GRID = 3
"""Tiles, thumbnail not counted, up to which a picture counts as small."""


class Document(NamedTuple):
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


class Expanded(NamedTuple):
    """Ids with every tile at its length, right-padded: one question a document then needs no mask."""

    input_ids: Tensor
    """[docs, L], int64."""

    is_answer: Tensor
    """[docs, L], bool."""

    branch: Tensor
    """[docs, L], int64."""

    @property
    def has_branches(self) -> bool:
        """Whether a document asks several questions."""
        return int(self.branch.max()) > 1

    def positions(self) -> Tensor:
        """[docs, L], int64: those that each token has when its question is the only one."""
        place = torch.arange(self.branch.shape[1]).expand_as(self.branch)
        shared = (self.branch == 0).sum(dim=1, keepdim=True)
        begins = torch.ones_like(self.branch, dtype=torch.bool)
        begins[:, 1:] = self.branch[:, 1:] != self.branch[:, :-1]
        start = torch.where(begins, place, 0).cummax(dim=1).values
        return torch.where(self.branch == 0, place, place - start + shared)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """[docs, 1, L, L], 0 or the lowest number, to be added: a token sees what precedes it but other questions."""
        asked, seen = self.branch[:, :, None], self.branch[:, None, :]
        length = self.branch.shape[1]
        is_before = torch.ones(length, length, dtype=torch.bool).tril()
        is_seen = is_before & ((seen == 0) | (seen == asked))
        return torch.zeros(is_seen.shape, dtype=dtype).masked_fill(~is_seen, torch.finfo(dtype).min)[:, None]


@dataclass(frozen=True)
class Batch:
    """Documents with equally many tiles."""

    tiles: Tensor
    """[tiles, S, S, 3], uint8."""

    tile_image: Tensor
    """[docs, T], int64."""

    input_ids: Tensor
    """[docs, N], int64, right-padded."""

    is_answer: Tensor
    """[docs, N], bool."""

    branch: Tensor
    """[docs, N], int64; padding belongs to the last question."""

    cells: Tensor
    """[tiles, h, w], int64."""

    glyphs: Tensor
    """[tiles, h/2, w/2], int64."""

    image_token_id: int
    pad_token_id: int

    @property
    def num_documents(self) -> int:
        """Documents in the batch."""
        return len(self.input_ids)

    @property
    def tiles_per_document(self) -> int:
        """Tiles of each document."""
        return self.tile_image.shape[1]

    @property
    def answer_document(self) -> Tensor:
        """[answers], int64: the document of each answer token, in the order in which logits are returned."""
        return self.is_answer.nonzero()[:, 0]

    @property
    def answers(self) -> Tensor:
        """[answers], int64: the answer tokens themselves."""
        return self.input_ids[self.is_answer]

    def expand(self, counts: Tensor) -> Expanded:
        """The ids with `counts[tile]` image tokens for each tile [tiles]."""
        repeats = (self.input_ids != self.pad_token_id).long()
        repeats[self.input_ids == self.image_token_id] = counts
        lengths = repeats.sum(dim=1)
        is_token = torch.arange(int(lengths.max())) < lengths[:, None]
        input_ids = torch.full(is_token.shape, self.pad_token_id)
        is_answer = torch.zeros(is_token.shape, dtype=torch.bool)
        branch = self.branch[:, -1:].repeat(1, is_token.shape[1])
        for expanded, ids in ((input_ids, self.input_ids), (is_answer, self.is_answer), (branch, self.branch)):
            expanded[is_token] = ids.flatten().repeat_interleave(repeats.flatten())
        return Expanded(input_ids, is_answer, branch)


def step_rng(seed: int, stage: str, step: int) -> np.random.Generator:
    """The random numbers of one step of one stage, whatever ran before."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def question_text(scene: Scene, text: str) -> str:
    """A question with its images marked as InternVL marks them."""
    if scene.is_video:
        return "".join(f"Frame{i + 1}: {IMAGE_MARK}\n" for i in range(len(scene.images))) + text
    if len(scene.images) > 1:
        return "".join(f"Image-{i + 1}: {IMAGE_MARK}\n" for i in range(len(scene.images))) + text
    return f"{IMAGE_MARK}\n{text}"


def make_document(
    scene: Scene,
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    config: VicoInternVLConfig,
    tiling: TilingPart | None = None,
) -> Document:
    """A scene and some of its questions, each as the prompt that evaluation uses.

    A `tiling` part cuts images its own way, without one they are cut as InternVL does; the labels need whole tiles.
    """
    cut = tile_by_ratio if tiling is None else tiling.tile
    settings = TilingSettings(
        tile_size=config.tile_size,
        min_tiles=config.min_tiles,
        max_tiles=1 if scene.is_video else config.max_tiles,
        use_thumbnail=config.use_thumbnail,
    )
    tiles = [cut(image, settings).tiles for image in scene.images]
    counts = [len(of_image) for of_image in tiles]
    image_token = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))  # type: ignore[arg-type]
    stop = get_template(config.template).stop
    ids: list[int] = []
    is_answer: list[bool] = []
    branch: list[int] = []
    for number, question in enumerate(questions, start=1):
        prompt = build_prompt(
            config.template,
            question_text(scene, question.text),
            counts,
            system=config.system_message,
            tokens_per_tile=1,
        )
        asked = tokenizer(prompt, add_special_tokens=False).input_ids
        answer = tokenizer(question.answer + stop, add_special_tokens=False).input_ids
        # Everything up to the last tile is shared.
        shared = len(asked) - asked[::-1].index(image_token)
        if number == 1:
            ids, is_answer, branch = asked[:shared], [False] * shared, [0] * shared
        ids += asked[shared:] + answer
        is_answer += [False] * (len(asked) - shared) + [True] * len(answer)
        branch += [number] * (len(asked) - shared + len(answer))
    side = config.vit_grid
    return Document(
        tiles=np.concatenate(tiles),
        tile_image=np.repeat(np.arange(len(counts)), counts),
        input_ids=np.asarray(ids, dtype=np.int64),
        is_answer=np.asarray(is_answer, dtype=bool),
        branch=np.asarray(branch, dtype=np.int64),
        cells=_labels(scene.cells, side, counts),
        glyphs=_labels(scene.glyph_slots, side // 2, counts),
    )


def collate(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Documents with equally many tiles as one batch."""
    pad = int(tokenizer.pad_token_id)
    length = max(len(document.input_ids) for document in documents)
    input_ids = torch.full((len(documents), length), pad)
    is_answer = torch.zeros(len(documents), length, dtype=torch.bool)
    branch = torch.zeros(len(documents), length, dtype=torch.long)
    for row, document in enumerate(documents):
        own = len(document.input_ids)
        input_ids[row, :own] = torch.from_numpy(document.input_ids)
        is_answer[row, :own] = torch.from_numpy(document.is_answer)
        branch[row, :own] = torch.from_numpy(document.branch)
        branch[row, own:] = int(document.branch[-1])
    return Batch(
        tiles=torch.from_numpy(np.concatenate([document.tiles for document in documents])),
        tile_image=torch.from_numpy(np.stack([document.tile_image for document in documents])),
        input_ids=input_ids,
        is_answer=is_answer,
        branch=branch,
        cells=torch.from_numpy(np.concatenate([document.cells for document in documents])),
        glyphs=torch.from_numpy(np.concatenate([document.glyphs for document in documents])),
        image_token_id=int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)),  # type: ignore[arg-type]
        pad_token_id=pad,
    )


def make_batch(
    rng: np.random.Generator,
    tokenizer: PreTrainedTokenizerBase,
    config: VicoInternVLConfig,
    *,
    num_tokens: int,
    max_questions: int,
    lookup_only: bool = False,
    tiling: TilingPart | None = None,
) -> Batch:
    """Random documents with equally many tiles each, at most `num_tokens` decoder tokens, padding included.

    At least one document, however long it is.
    """
    kind = "image" if lookup_only else str(rng.choice(["image", "compare", "video"], p=[0.7, 0.15, 0.15]))
    tasks = LOOKUP if lookup_only else IMAGE_TASKS if kind == "image" else (kind,)
    sizes: Sequence[tuple[int, int]] = COMPARE_GRIDS if kind == "compare" else GRIDS
    if lookup_only:
        sizes = [grid for grid in sizes if grid[0] * grid[1] <= SMALL_GRID]
    columns, rows = sizes[int(rng.integers(len(sizes)))]
    grids = [grid for grid in sizes if grid[0] * grid[1] == columns * rows]
    documents: list[Document] = []
    longest = 0
    while True:
        task = str(rng.choice(tasks))
        scene = make_scene(task, rng, None if kind == "video" else grids[int(rng.integers(len(grids)))])
        document = make_document(scene, choose_questions(scene, rng, max_questions), tokenizer, config, tiling)
        length = len(document.input_ids) + (config.num_high_tokens - 1) * len(document.tiles)
        longest = max(longest, length)
        if documents and longest * (len(documents) + 1) > num_tokens:
            return collate(documents, tokenizer)
        documents.append(document)


def choose_questions(scene: Scene, rng: np.random.Generator, max_questions: int) -> list[Question]:
    """Up to `max_questions` of a scene's questions; the first, which the fixed splits ask, is always among them."""
    others = rng.permutation(len(scene.questions) - 1)[: max_questions - 1]
    return [scene.questions[0], *(scene.questions[1 + int(i)] for i in others)]


def batches(make: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """`make(step)` for each step in [start, stop), made ahead by a worker process."""
    loader = DataLoader(
        _Steps(make, stop),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=WORKERS,
        prefetch_factor=4 if WORKERS else None,
    )
    yield from loader


class _Steps(Dataset[T]):
    def __init__(self, make: Callable[[int], T], stop: int) -> None:
        self.make = make
        self.stop = stop

    def __len__(self) -> int:
        return self.stop

    def __getitem__(self, step: int) -> T:
        return self.make(step)


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
