"""Preparing a stage's batches ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.interface import PixelPart, ResolutionPart
from vico_eval.training.small.data.batches import Batch
from vico_eval.training.small.data.documents import DocumentMaker
from vico_eval.training.small.data.drawing import make_batch, step_rng
from vico_eval.training.small.recipe import BaseRecipe, TextBatchRecipe

T = TypeVar("T")

WORKERS = 1
"""Number of processes that prepare batches, per training process."""


@dataclass(frozen=True)
class DocumentParts:
    """This process's parts of a step's documents, which depend only on seed, stage, part and step."""

    seed: int
    stage: str
    tokenizer: PreTrainedTokenizerBase
    config: VicoInternVLConfig
    settings: TextBatchRecipe
    own: range
    """The numbers of this process's parts. They are set in advance, because the worker process that prepares batches
    does not know its training process."""

    resolution: ResolutionPart | PixelPart | None = None
    """Divides images into tiles; None means InternVL's tiling."""

    def __call__(self, step: int) -> list[tuple[int, Batch]]:
        """Return the numbered parts of one step."""
        settings = self.settings
        return [
            (
                part,
                make_batch(
                    step_rng(self.seed, f"{self.stage}/{part}", step),
                    self._make,
                    num_tokens=settings.num_tokens // settings.num_parts,
                    max_questions=settings.max_questions,
                    lookup_only=isinstance(settings, BaseRecipe) and step < settings.lookup_steps,
                ),
            )
            for part in self.own
        ]

    @cached_property
    def _make(self) -> DocumentMaker:
        # Created in the worker process, because a preprocessor can't be sent between processes.
        return DocumentMaker(self.tokenizer, self.config, self.resolution)


def steps(make: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """Yield `make(step)` for each step in [start, stop), prepared ahead by a worker process."""
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
