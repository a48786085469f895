"""Validation accuracy of the small model under a routing, for use during training.

An answer is correct if each of its tokens, including the end token, is the most likely one given the true tokens before
it. That is equivalent to greedy decoding giving the answer, but takes one forward pass instead of one per token. The
benchmark itself is evaluated through the harness, on other documents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods.interface import PixelPart, ResolutionPart
from vico_eval.tiny.scenes import TASKS, make_scene
from vico_eval.training.loop.finite import NotFinite
from vico_eval.training.models.measures import document_means
from vico_eval.training.small.data.batches import Batch, collate
from vico_eval.training.small.data.documents import DocumentMaker, TokenizedDocument
from vico_eval.training.small.data.drawing import step_rng
from vico_eval.training.small.decoding import encode, routed_logits

VALIDATION = "validation"
Routing = Callable[[Batch, Tensor], Tensor]
"""Maps a batch and its vision tokens to `compressed`, [tiles] bool."""

Logits = Callable[[Batch, Tensor], Tensor]
"""Maps a batch and its vision tokens to logits [answers, V]."""


@dataclass(frozen=True)
class Accuracy:
    """The result of an evaluation."""

    by_task: dict[str, float]
    """Percentage of documents answered exactly, by task."""

    compressed_tile_ratio: float
    """Compressed tiles / tiles, over all documents."""

    @property
    def average(self) -> float:
        """Plain mean over tasks."""
        return sum(self.by_task.values()) / len(self.by_task)


def validation_documents(
    tokenizer: PreTrainedTokenizerBase,
    model: VicoInternVL,
    seed: int,
    num_documents: int,
    resolution: ResolutionPart | PixelPart | None = None,
) -> Iterator[tuple[str, TokenizedDocument]]:
    """Yield the same number of documents of every task, each with its first question, from a random stream that
    training never uses."""
    make = DocumentMaker(tokenizer, model.config, resolution)
    for index in range(num_documents):
        task = TASKS[index % len(TASKS)]
        scene = make_scene(task, step_rng(seed, VALIDATION, index))
        yield task, make(scene, scene.questions[:1])


def validation_batches(
    tokenizer: PreTrainedTokenizerBase,
    model: VicoInternVL,
    seed: int,
    num_documents: int,
    max_tiles: int = 128,
    resolution: ResolutionPart | PixelPart | None = None,
) -> list[tuple[str, Batch]]:
    """Return the validation documents in batches with the same task and number of tiles."""
    alike: dict[tuple[str, int], list[TokenizedDocument]] = defaultdict(list)
    for task, document in validation_documents(tokenizer, model, seed, num_documents, resolution):
        alike[task, len(document.tiles)].append(document)
    made = []
    for (task, tiles), documents in alike.items():
        size = max(1, max_tiles // tiles)
        made += [(task, collate(documents[i : i + size], tokenizer)) for i in range(0, len(documents), size)]
    return made


def evaluate(model: VicoInternVL, batches: list[tuple[str, Batch]], routing: Routing) -> Accuracy:
    """Return the accuracy by task under a routing."""
    decided: list[Tensor] = []

    def logits(batch: Batch, vit_tokens: Tensor) -> Tensor:
        decided.append(routing(batch, vit_tokens))
        return routed_logits(model, batch, vit_tokens, decided[-1])

    by_task = percent_right(model, batches, logits)
    return Accuracy(by_task, float(torch.cat(decided).double().mean()))


@torch.inference_mode()
def percent_right(model: VicoInternVL, batches: list[tuple[str, Batch]], logits: Logits) -> dict[str, float]:
    """Return the percentage of documents answered exactly, by task; raises NotFinite if a logit is not finite."""
    was_training = model.training
    model.train(False)
    right: dict[str, list[Tensor]] = defaultdict(list)
    for task, batch in batches:
        found = logits(batch, encode(model, batch))
        if not bool(found.isfinite().all()):
            raise NotFinite(f"The model's logits for validation documents of the task {task} are not finite.")
        hit = found.argmax(dim=-1) == batch.answers
        right[task].append(document_means(hit.float(), batch.answer_document, batch.num_documents) == 1)
    model.train(was_training)
    return {task: 100 * float(torch.cat(hits).float().mean()) for task, hits in right.items()}


def all_high(batch: Batch, vit_tokens: Tensor) -> Tensor:
    """Compress no tile."""
    return torch.zeros(len(vit_tokens), dtype=torch.bool)


def all_low(batch: Batch, vit_tokens: Tensor) -> Tensor:
    """Compress every tile."""
    return torch.ones(len(vit_tokens), dtype=torch.bool)


def random_routing(ratio: float, seed: int) -> Routing:
    """Return a routing that compresses every tile with probability `ratio`."""
    generator = torch.Generator().manual_seed(seed)
    return lambda batch, vit_tokens: torch.rand(len(vit_tokens), generator=generator) < ratio


def tile_routing(model: VicoInternVL, threshold: float) -> Routing:
    """Return a routing by the tile router's decisions."""
    return lambda batch, vit_tokens: tile_scores(model, batch, vit_tokens) >= threshold


def image_routing(model: VicoInternVL, threshold: float) -> Routing:
    """Return a routing by the image router, with one decision per image."""
    return lambda batch, vit_tokens: image_scores(model, batch, vit_tokens) >= threshold


def tile_scores(model: VicoInternVL, batch: Batch, vit_tokens: Tensor) -> Tensor:
    """Return p_compress of each tile, [tiles]."""
    assert model.router is not None
    return model.router.p_compress(vit_tokens)


def image_scores(model: VicoInternVL, batch: Batch, vit_tokens: Tensor) -> Tensor:
    """Return, for each tile, the mean of the image router's p_compress over the tiles of its image, [tiles]."""
    assert model.image_router is not None
    docs, _ = batch.tile_image.shape
    images = int(batch.tile_image.max()) + 1
    image = (batch.tile_image + images * torch.arange(docs)[:, None]).flatten()
    return document_means(model.image_router.p_compress(vit_tokens), image, docs * images)[image]
