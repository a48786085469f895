"""Routing decisions of an earlier ViCO run, document by document: `decisions_from=FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vico_eval.errors import ConfigError, ReportError
from vico_eval.methods.interface import RequestTiles
from vico_eval.methods.shared.earlier_run import finished_accounts
from vico_eval.runs.read import read_record
from vico_eval.runs.schema import TokenAccount


class Decided(NamedTuple):
    """The decisions about one document."""

    media: str | None
    """Digest of its tiles."""

    grids: tuple[tuple[int, ...], ...]
    """Columns, rows and tiles of each image or frame."""

    compressed: tuple[int, ...]
    """Indices of the compressed tiles."""


class EarlierDecisions:
    """The decisions of a finished run, read from its record and accounts.

    Raises:
        ConfigError: the folder holds no finished ViCO run, or accounts that don't record which tiles were compressed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.sha256 = self._read_record()
        """Digest of the weights that decided."""

        self._decided = {
            key: self._read(key, account)
            for task, accounts in finished_accounts(folder, "decisions_from").items()
            for key, account in ((f"{task}/{split}/{number}", account) for (split, number), account in accounts.items())
        }

    def of(self, tiles: RequestTiles) -> Tensor:
        """Which tiles of a request were compressed, [tiles], bool.

        Raises:
            ValueError: the run has no decision about this document, or saw other pictures or tiles.
        """
        decided = self._decided.get(tiles.key)
        if decided is None:
            raise ValueError(
                f"the run in decisions_from={self._folder} has no answer to it. Repeat that run (resume=true), or make "
                "a new one on the same documents."
            )
        if (decided.media, decided.grids) != (tiles.media, tiles.grids):
            then, now = (sum(count for *_, count in grids) for grids in (decided.grids, tiles.grids))
            how = f"{then} tiles, and it has {now} here" if then != now else "other tiles"
            raise ValueError(
                f"the run in decisions_from={self._folder} saw {how}. Cut pictures as in that run (max_tiles, "
                "total_max_tiles, num_frames), and use the same data."
            )
        compressed = torch.zeros(tiles.num_tiles, dtype=torch.bool)
        compressed[list(decided.compressed)] = True
        return compressed

    def _read_record(self) -> str:
        try:
            record, problem = read_record(Path(self._folder)), "it is missing"
        except ReportError as error:
            record, problem = None, str(error)
        if record is None:
            raise ConfigError(
                f"decisions_from={self._folder} has no readable record.json ({problem}); expected the record_dir of "
                "a finished run of ViCO."
            )
        if "vico" not in record.method.split("+"):
            raise ConfigError(
                f"decisions_from={self._folder} is a run of method {record.method!r}; expected a run of vico, whose "
                "decisions are used."
            )
        return str(record.checkpoint.sha256)

    def _read(self, key: str, account: TokenAccount) -> Decided:
        if account.grids is None or account.compressed is None:
            missing = "grids" if account.grids is None else "compressed"
            raise ConfigError(
                f"the run in decisions_from={self._folder} does not record which tiles of {key} were compressed "
                f"({missing!r} is missing). It may come from an earlier version; run ViCO again."
            )
        return Decided(account.media, account.grids, account.compressed)
