"""The state a training keeps through all its phases: its folder, its corpus, and a record of its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.config import RunConfig
from vico_eval.training.data.opening import Corpus
from vico_eval.training.data.reading.found import Found
from vico_eval.training.data.samples import Data, open_together
from vico_eval.training.held_out import HeldOut
from vico_eval.training.loop.accelerated import on_main
from vico_eval.training.loop.phase import Training
from vico_eval.training.loop.watch import Watch
from vico_eval.training.saving.files import held


@dataclass(frozen=True)
class Session:
    """A training and the output folder that it has locked against other trainings."""

    training: Training
    config: RunConfig
    corpus: Corpus

    @property
    def accelerator(self) -> Accelerator:
        """The training's accelerator."""
        return self.training.accelerator

    def data(self, policy: VicoInternVL, tokenizer: PreTrainedTokenizerBase) -> tuple[Data, HeldOut]:
        """Open the training samples of a phase and the held-out samples."""
        data = Data(self.config, policy.config, tokenizer, self.accelerator, self.corpus)
        return data, HeldOut(self.accelerator, data.held_out)


@contextmanager
def opened(accelerator: Accelerator, config: RunConfig, models: Sequence[str]) -> Iterator[Session]:
    """Open a training for the duration of the context; every process makes the same call.

    Args:
        models: the checkpoints that the training reads.

    Raises:
        CheckpointError: a model is missing.
        ConfigError: a data source can't be used.
        OutputError: another training is writing into `out`.
    """
    with ExitStack() as stack:
        on_main(accelerator, lambda: stack.enter_context(held(config.out)))
        watch = Watch(accelerator, config.out)
        corpus = open_together(config, accelerator)
        found: list[Found] = on_main(accelerator, corpus.found)
        for source in found:
            _name_unread(watch, source)
        weights = on_main(accelerator, lambda: [_identity(name) for name in models])
        training = Training(
            accelerator=accelerator,
            watch=watch,
            out=config.out,
            seed=config.seed,
            saving=config.saving,
            identity=config.identity(),
            inputs=[*(source.identity() for source in found), *weights],
        )
        yield Session(training, config, corpus)


def _identity(model: str) -> dict[str, Any]:
    return {"name": f"checkpoint {model}", "sha256": find_checkpoint(model).identity()["sha256"]}


def _name_unread(watch: Watch, source: Found) -> None:
    """Print and log the keys of a source that are ignored."""
    if not source.unread:
        return
    counted = (name if number is None else f"{name} in {number}" for name, number in source.unread.items())
    of = "" if source.samples is None else f" of {source.samples} samples"
    watch.say(f"Ignored keys in {source.name}: {', '.join(counted)}{of}.")
    watch.write({"not_read": dict(source.unread), "source": source.name})
