"""Shares that an earlier run measured, for methods with the same budget (`ratio_from=FOLDER`), and its accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import task_of
from vico_eval.runs.read import read_accounts, unfinished_tasks
from vico_eval.runs.schema import TokenAccount

if TYPE_CHECKING:
    from typing_extensions import Self

Document = tuple[str, int | str]
"""Split and doc_id."""


@dataclass(frozen=True, kw_only=True)
class TargetRatio:
    """Hyper-parameters of a method whose budget can be a target share of visual tokens."""

    target_ratio: float | None = None
    """Average over all decoder layers of the visual tokens a layer processes, as a share of those that the method
    receives, in (0, 1]: those after ViCO in `vico+divprune`, those at the decoder's input for a method in the
    decoder."""

    ratio_from: str | None = None
    """Folder of an earlier run, for example of ViCO, whose share is used benchmark by benchmark; replaces
    target_ratio."""

    def __post_init__(self) -> None:
        if self.target_ratio is not None and not 0 < self.target_ratio <= 1:
            raise ConfigError(f"got target_ratio={self.target_ratio}; expected a share of visual tokens in (0, 1].")

    def resolved(self) -> Self:
        """The configuration with the mean over benchmarks as target_ratio, which a run's record then shows."""
        if self.ratio_from is None:
            return self
        return replace(self, target_ratio=measured_share(self.ratio_from, "target_ratio", self.target_ratio))

    @property
    def has_target(self) -> bool:
        """Whether a target was given, as target_ratio or ratio_from."""
        return self.target_ratio is not None or self.ratio_from is not None

    def refuse_beside_target(self, method: str, argument: str) -> None:
        """Raises ConfigError if an argument that determines the share was given in addition to a target."""
        if self.has_target and getattr(self, argument) is not None:
            raise ConfigError(f"{method} takes {argument} or target_ratio, not both: each determines the other.")

    def target_of(self, key: str) -> float | None:
        """The target of a document, by its key; None if none was given.

        Raises:
            ConfigError: the earlier run has no visual tokens of the document's benchmark, or can't be read.
        """
        if self.ratio_from is None:
            return self.target_ratio
        task = task_of(key)
        if task not in self._by_task:
            raise no_such_benchmark(self.ratio_from, task, self._by_task, "target_ratio")
        return self._by_task[task]

    def targets(self) -> dict[str, float]:
        """Every target, keyed by its name in messages.

        Raises:
            ConfigError: the earlier run can't be read.
        """
        if self.ratio_from is None:
            return {} if self.target_ratio is None else {f"target_ratio={self.target_ratio}": self.target_ratio}
        return {
            f"the {share:.3f} that ratio_from={self.ratio_from} measured on {task}": share
            for task, share in self._by_task.items()
        }

    @cached_property
    def _by_task(self) -> Mapping[str, float]:
        return visual_token_shares(str(self.ratio_from))


def measured_share(folder: str, argument: str, given: float | None) -> float:
    """The share of visual tokens that an earlier run measured, averaged over benchmarks.

    Args:
        folder: folder of the run.
        argument: the argument that the measured share replaces.
        given: the value given for that argument.

    Raises:
        ConfigError: that argument was given another value; or as `visual_token_shares`.
    """
    measured = fmean(visual_token_shares(folder).values())
    if given not in (None, measured):
        raise ConfigError(f"got {argument} and ratio_from; give one, because ratio_from measures it.")
    return measured


def visual_token_shares(folder: str) -> dict[str, float]:
    """Visual tokens averaged over decoder layers, as a share of the uncompressed ones, by benchmark that has any.

    Raises:
        ConfigError: the folder holds no finished run, or one that saved no visual token.
    """
    shares = {}
    for task, by_document in finished_accounts(folder, "ratio_from").items():
        accounts = by_document.values()
        uncompressed = sum(account.visual_tokens_uncompressed for account in accounts)
        if uncompressed:
            shares[task] = sum(fmean(account.visual_tokens_per_layer) for account in accounts) / uncompressed
    # Having fewer tiles saves nothing here: an account counts only the tiles that the run had.
    if not shares or fmean(shares.values()) >= 1:
        raise ConfigError(
            f"the run in ratio_from={folder} saved none of its tiles' visual tokens; expected a run of ViCO or of "
            "another method that saves tokens after the vision encoder."
        )
    if more := sorted(task for task, share in shares.items() if share > 1):
        raise ConfigError(
            f"the run in ratio_from={folder} processed more visual tokens than its tiles had on {', '.join(more)}; "
            "expected a run that saves some."
        )
    return shares


def no_such_benchmark(folder: str, task: str, known: Mapping[str, float], instead: str) -> ConfigError:
    """The error for an earlier run without visual tokens of a benchmark."""
    return ConfigError(
        f"the run in ratio_from={folder} has no visual tokens of {task!r}; it has {', '.join(sorted(known))}. Run its "
        f"method on that benchmark first, or pass {instead}=."
    )


def compressed_tile_ratios(folder: str) -> dict[str, float]:
    """Compressed tiles / tiles, by benchmark of an earlier run that has tiles.

    Raises:
        ConfigError: the folder holds no finished run, or one that compressed no tile.
    """
    ratios = {}
    for task, by_document in finished_accounts(folder, "ratio_from").items():
        accounts = by_document.values()
        tiles = sum(account.tiles for account in accounts)
        if tiles:
            ratios[task] = sum(account.compressed_tiles for account in accounts) / tiles
    if not any(ratios.values()):
        raise ConfigError(f"the run in ratio_from={folder} compressed no tile; expected a run of ViCO.")
    return ratios


def finished_accounts(folder: str, argument: str) -> dict[str, dict[Document, TokenAccount]]:
    """Accounts by task and document, provided that the harness has recorded their number and all have ended.

    Args:
        folder: folder of the run.
        argument: the method's argument that names the folder, for messages.

    Raises:
        ConfigError: the folder holds no run, or one that is not finished.
    """
    accounts = read_accounts(Path(folder))
    if accounts is None:
        raise ConfigError(
            f"{argument}={folder} has no answers.rank*.jsonl; expected the record_dir of a finished run of ViCO."
        )
    if not accounts:
        raise ConfigError(f"the run in {argument}={folder} has no answers yet; wait until it is finished.")
    if left := unfinished_tasks(Path(folder), accounts):
        unfinished = [
            f"{task} (answers to {ended} of {expected or 'an unknown number of'} documents)"
            for task, (ended, expected) in left.items()
        ]
        raise ConfigError(
            f"the run in {argument}={folder} is not finished and covers some documents only: "
            f"{', '.join(unfinished)}. Expected results of lmms-eval or VLMEvalKit in that folder for all of them; "
            "repeat the run's command, with the folder as both record_dir and --output_path."
        )
    return accounts
