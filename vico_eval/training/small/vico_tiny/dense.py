"""Dense supervision of the ViT: classify what each patch of a tile shows.

A small encoder does not learn to read from the decoder's loss alone, but it does after this stage. The linear head is
discarded afterwards.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.tiling import normalise
from vico_eval.tiny.scenes import CELL_CLASSES, TASKS, make_scene
from vico_eval.training.small.data.documents import UNKNOWN, DocumentMaker

EMPTY_TILE_SHARE = 0.15


class DenseHead(nn.Module):
    """A classifier of patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, CELL_CLASSES)

    def forward(self, vit_tokens: Tensor) -> Tensor:
        """Return class logits: [tiles, 1 + h*w, C] -> [tiles, h*w, classes]."""
        return self.linear(self.norm(vit_tokens[:, 1:]))  # type: ignore[no-any-return]


def dense_batch(
    rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, config: VicoInternVLConfig, num_tiles: int
) -> tuple[Tensor, Tensor]:
    """Draw tiles [num_tiles, S, S, 3], few of them empty, and their patch classes [num_tiles, h*w]."""
    make = DocumentMaker(tokenizer, config)
    tiles: list[np.ndarray] = []
    cells: list[np.ndarray] = []
    while len(tiles) < num_tiles:
        task = TASKS[int(rng.integers(len(TASKS)))]
        scene = make_scene(task, rng)
        document = make(scene, scene.questions[:1])
        for tile, classes in zip(document.tiles, document.cells, strict=True):
            known = classes[0, 0] != UNKNOWN
            if known and ((classes > 0).any() or rng.random() < EMPTY_TILE_SHARE):
                tiles.append(tile)
                cells.append(classes.ravel())
    return torch.from_numpy(np.stack(tiles[:num_tiles])), torch.from_numpy(np.stack(cells[:num_tiles]))


def dense_loss(
    model: VicoInternVL, head: DenseHead, tiles: Tensor, cells: Tensor, empty_weight: float
) -> dict[str, Tensor]:
    """Return the weighted cross-entropy over patches, and the accuracy on patches that are not empty.

    Args:
        tiles: [tiles, S, S, 3], uint8.
        cells: [tiles, h*w], int64.
        empty_weight: weight of class 0, an empty patch.
    """
    logits = head(model.encode_tiles(normalise(tiles))).flatten(0, 1)
    target = cells.flatten()
    weight = torch.ones(CELL_CLASSES)
    weight[0] = empty_weight
    shown = target > 0
    accuracy = (logits.argmax(dim=-1) == target)[shown].float().mean()
    return {"loss": F.cross_entropy(logits, target, weight), "accuracy": accuracy}
