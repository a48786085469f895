"""What an earlier run measured, for methods that are to spend as much (`ratio_from=FOLDER`), and its accounts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from vico_eval.errors import ConfigError
from vico_eval.runs.read import read_accounts, unfinished_tasks
from vico_eval.runs.schema import TokenAccount

if TYPE_CHECKING:
    from typing_extensions import Self

Document = tuple[str, int | str]
"""Split and doc_id."""


@dataclass(frozen=True, kw_only=True)
class TargetRatio:
    """Hyper-parameters of a method that can be set by the share of visual tokens it is to leave."""

    target_ratio: float | None = None
    """Visual tokens averaged over all decoder layers, as a share of those at its input, in (0, 1]."""

    ratio_from: str | None = None
    """Folder of an earlier run, say ViCO's, whose measured share becomes target_ratio."""

    def __post_init__(self) -> None:
        if self.target_ratio is not None and not 0 < self.target_ratio <= 1:
            raise ConfigError(f"got target_ratio={self.target_ratio}; expected a share of visual tokens in (0, 1].")

    def resolved(self) -> Self:
        """With the target that the earlier run measured; a run's record then has both and says which number it was."""
        if self.ratio_from is None:
            return self
        return replace(self, target_ratio=measured_share(self.ratio_from, "target_ratio", self.target_ratio))


def measured_share(folder: str, argument: str, given: float | None) -> float:
    """The share of visual tokens that an earlier run measured.

    Args:
        folder: of the run.
        argument: the one in whose place it is taken.
        given: what was given for that.

    Raises:
        ConfigError: that argument was given with another number; or as `visual_token_share`.
    """
    measured = visual_token_share(folder)
    if given not in (None, measured):
        raise ConfigError(f"got {argument} and ratio_from; give one: ratio_from measures it.")
    return measured


def visual_token_share(folder: str) -> float:
    """Visual tokens averaged over decoder layers, as a share of the uncompressed ones; the mean over benchmarks.

    Raises:
        ConfigError: the folder holds no finished run, or one that saved no visual token.
    """
    shares = []
    for by_document in finished_accounts(folder, "ratio_from").values():
        accounts = by_document.values()
        uncompressed = sum(account.visual_tokens_uncompressed for account in accounts)
        if uncompressed:
            shares.append(sum(fmean(account.visual_tokens_per_layer) for account in accounts) / uncompressed)
    # Fewer tiles don't count: the account of a run knows those that it had.
    if not shares or fmean(shares) >= 1:
        raise ConfigError(
            f"the run in ratio_from={folder} saved none of its tiles' visual tokens; expected one of ViCO or of "
            "another method that saves in the connector or in the decoder."
        )
    return fmean(shares)


def compressed_tile_ratios(folder: str) -> dict[str, float]:
    """Compressed tiles / tiles of each benchmark of an earlier run that has tiles.

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
    """Accounts by task and document, once the harness has said how many there are and all of them have ended.

    Args:
        folder: of the run.
        argument: the name by which the method takes it, for messages.

    Raises:
        ConfigError: the folder holds no run, or one that is not finished.
    """
    accounts = read_accounts(Path(folder))
    if accounts is None:
        raise ConfigError(
            f"{argument}={folder} holds no answers.rank*.jsonl; expected the record_dir of a finished run of ViCO."
        )
    if not accounts:
        raise ConfigError(f"the run in {argument}={folder} has no answer yet; wait until it is finished.")
    if left := unfinished_tasks(Path(folder), accounts):
        unfinished = [
            f"{task} (answers to {ended} of {expected or 'an unknown number of'} documents)"
            for task, (ended, expected) in left.items()
        ]
        raise ConfigError(
            f"the run in {argument}={folder} is not finished, so it knows of some documents only: "
            f"{', '.join(unfinished)}. Expected results of lmms-eval or VLMEvalKit in that folder that count as many; "
            "repeat the run's command, with the folder as both record_dir and --output_path."
        )
    return accounts
