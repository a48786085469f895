"""Stages whose steps feed batches made ahead: documents to the decoder, mostly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.parts import TilingPart
from vico_eval.training.small.data.documents import Batch, batches, make_batch, step_rng
from vico_eval.training.small.loop import ParameterGroup, fit
from vico_eval.training.small.recipe import BaseRecipe, Schedule, TextBatchRecipe

T = TypeVar("T")


@dataclass(frozen=True)
class DocumentParts:
    """This process's parts of a step's documents, a function of seed, stage, part and step."""

    seed: int
    stage: str
    tokenizer: PreTrainedTokenizerBase
    config: VicoInternVLConfig
    settings: TextBatchRecipe
    own: range
    """The parts. Asked for beforehand: a process that makes batches ahead does not know whose it is."""

    tiling: TilingPart | None = None
    """Cuts the images; None cuts them as InternVL does."""

    def __call__(self, step: int) -> list[tuple[int, Batch]]:
        """The numbered parts of one step."""
        settings = self.settings
        return [
            (
                part,
                make_batch(
                    step_rng(self.seed, f"{self.stage}/{part}", step),
                    self.tokenizer,
                    self.config,
                    num_tokens=settings.num_tokens // settings.num_parts,
                    max_questions=settings.max_questions,
                    lookup_only=isinstance(settings, BaseRecipe) and step < settings.lookup_steps,
                    tiling=self.tiling,
                ),
            )
            for part in self.own
        ]


def fit_batches(
    stage: str,
    settings: Schedule,
    groups: list[ParameterGroup],
    make: Callable[[int], list[tuple[int, T]]],
    loss: Callable[[int, T], dict[str, Tensor]],
    *,
    seed: int,
    folder: Path,
    resume: bool,
) -> None:
    """`loop.fit` on `make(step)`, made ahead by a worker process."""
    fit(
        stage,
        settings,
        groups,
        lambda start: batches(make, start, settings.steps),
        loss,
        seed=seed,
        folder=folder,
        resume=resume,
    )
