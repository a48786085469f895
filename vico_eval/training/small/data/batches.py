"""Batches of documents with the same number of tiles.

In a document's token ids every tile is one `<IMG_CONTEXT>`, which `Batch.expand` repeats once the routing is known.

Shapes: docs = documents of a batch, each with T tiles; tiles = all their tiles; N = token ids before expansion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.prompts import IMAGE_TOKEN
from vico_eval.training.small.data.documents import TokenizedDocument


class Expanded(NamedTuple):
    """Right-padded token ids with every tile expanded. With one question per document they need no attention mask."""

    input_ids: Tensor
    """[docs, L], int64."""

    is_answer: Tensor
    """[docs, L], bool."""

    branch: Tensor
    """[docs, L], int64."""

    @property
    def has_branches(self) -> bool:
        """Whether a document has several questions."""
        return int(self.branch.max()) > 1

    def positions(self) -> Tensor:
        """Return each token's position as if its question were the only one, [docs, L], int64."""
        place = torch.arange(self.branch.shape[1]).expand_as(self.branch)
        shared = (self.branch == 0).sum(dim=1, keepdim=True)
        begins = torch.ones_like(self.branch, dtype=torch.bool)
        begins[:, 1:] = self.branch[:, 1:] != self.branch[:, :-1]
        start = torch.where(begins, place, 0).cummax(dim=1).values
        return torch.where(self.branch == 0, place, place - start + shared)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Return an additive mask [docs, 1, L, L]: a token attends to earlier tokens, except other questions."""
        asked, seen = self.branch[:, :, None], self.branch[:, None, :]
        length = self.branch.shape[1]
        is_before = torch.ones(length, length, dtype=torch.bool).tril()
        is_seen = is_before & ((seen == 0) | (seen == asked))
        return torch.zeros(is_seen.shape, dtype=dtype).masked_fill(~is_seen, torch.finfo(dtype).min)[:, None]


@dataclass(frozen=True)
class Batch:
    """Documents with the same number of tiles."""

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
        """[answers], int64: the answer tokens."""
        return self.input_ids[self.is_answer]

    def expand(self, counts: Tensor) -> Expanded:
        """Expand the token ids to `counts[tile]` image tokens for each tile, counts [tiles]."""
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


def collate(documents: Sequence[TokenizedDocument], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Build a batch from documents with the same number of tiles."""
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
