"""A run's training samples, step by step, and its held-out samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.preprocess_settings import PreprocessSettings
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.training.config import RunConfig
from vico_eval.training.data.batches import MicroBatch, collate
from vico_eval.training.data.opening import Corpus, open_corpus
from vico_eval.training.data.places import Places
from vico_eval.training.data.prepare import Prepare, TrainingSample
from vico_eval.training.data.skips import SkipCount
from vico_eval.training.data.stream import Skipped, StepBatch, TrainingStream
from vico_eval.training.loop.phase import Resumable, Step


def open_together(config: RunConfig, accelerator: Accelerator) -> Corpus:
    """Open a configuration's corpus on every process; raises ConfigError as `open_corpus` does."""
    with accelerator.main_process_first():  # so that a data set is downloaded and prepared only once
        return open_corpus(config.data)


class Data:
    """One process's view of a configuration's samples."""

    def __init__(
        self,
        config: RunConfig,
        model_config: VicoInternVLConfig,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        corpus: Corpus | None = None,
    ) -> None:
        """
        Args:
            corpus: the configuration's corpus, if it is already open.

        Raises:
            ConfigError: a source is missing or empty, or nothing is held out.
        """
        self._config = config
        self._rank, self._world = accelerator.process_index, accelerator.num_processes
        self._preprocessor = Preprocessor(
            tokenizer,
            InternVLPrompting(InternVLSettings.of(model_config)),
            PreprocessSettings(max_tiles=config.data.max_tiles),
        )
        self._tokens_per_tile = model_config.num_high_tokens
        corpus = open_together(config, accelerator) if corpus is None else corpus
        if corpus.held_out is None:
            raise ConfigError(
                "No samples are held out, so the training could not be evaluated; set data.held_out_share, for example "
                "to 0.01, or data.held_out."
            )
        self._train, self._held_out = corpus.train, corpus.held_out
        self.skips = SkipCount(config.out, self._rank)
        self.places = Places(config.data.window_steps)
        self.blank = _blank(model_config, model_config.tile_size)

    @contextmanager
    def batches(self, first: int) -> Iterator[Iterator[Step[MicroBatch]]]:
        """Yield step `first` and all later ones, prepared ahead until the context is left; counts skipped samples."""
        stream = TrainingStream(
            self._train,
            self._prepare(augment=True),
            seed=self._config.seed,
            global_batch=self._config.global_batch,
            micro_batch=self._config.micro_batch,
            rank=self._rank,
            world=self._world,
            window_steps=self._config.data.window_steps,
            workers=self._config.data.workers,
        )
        steps = stream.steps(first, self.places)
        try:
            yield map(self._counted, steps)
        finally:
            steps.close()  # type: ignore[attr-defined]

    @property
    def resumables(self) -> dict[str, Resumable]:
        """The position in the data and the skip counts, which a checkpoint keeps."""
        return {"skips": self.skips, "places": self.places}

    def check_skips(self, *, at_least: int = 0) -> None:
        """End the training if too many samples were skipped and every process has seen `at_least` samples.

        Raises:
            SkippedTooMany: the share over all processes exceeds the limit.
        """
        states = gather_object([self.skips.state_dict()])
        if min(state["num_samples"] for state in states) >= at_least:
            others = [state for rank, state in enumerate(states) if rank != self._rank]
            self.skips.check(self._config.data.max_skipped_share, others)

    def held_out(self) -> Iterator[MicroBatch]:
        """Yield this process's share of the held-out samples, the same on every call. Every process gets the same
        number of batches."""
        size = self._config.micro_batch
        wanted = min(self._config.held_out_samples, len(self._held_out))
        num_steps = -(-wanted // (size * self._world))
        stream = TrainingStream(
            self._held_out,
            self._prepare(augment=False),
            seed=0,
            global_batch=size * self._world,
            micro_batch=size,
            rank=self._rank,
            world=self._world,
            window_steps=num_steps,
            workers=self._config.data.workers,
        )
        steps = stream.steps()
        try:
            for batch in itertools.islice(steps, num_steps):
                yield from map(self._collate, batch.micro_batches)
        finally:
            steps.close()  # type: ignore[attr-defined]

    def _counted(self, batch: StepBatch) -> Step[MicroBatch]:
        self.skips.count(batch)
        self.places.reach(batch.step)
        return Step(batch.step, list(map(self._collate, batch.micro_batches)))

    def _collate(self, samples: Sequence[TrainingSample | Skipped]) -> MicroBatch:
        return collate(samples, self.blank, is_packed=self._config.data.packed)

    def _prepare(self, *, augment: bool) -> Prepare:
        return Prepare(
            self._preprocessor,
            max_length=self._config.data.max_length,
            tokens_per_tile=self._tokens_per_tile,
            augment=augment,
            video_frames=self._config.data.video_frames,
        )


def _blank(config: VicoInternVLConfig, tile_size: int) -> TrainingSample:
    """Build the placeholder for a skipped sample, with one answer token and no tile."""
    return TrainingSample(
        key="",
        tiles=np.zeros((0, tile_size, tile_size, 3), dtype=np.uint8),
        tile_image=np.zeros(0, dtype=np.int64),
        tile_medium=np.zeros(0, dtype=np.int64),
        text_ids=[0, 0],
        image_positions=[],
        is_answer=np.array([False, True]),
        image_token_id=int(config.image_token_id or 0),
    )
