"""What an earlier run of ViCO decided, document by document: `decisions_from=FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.earlier_run import finished_accounts
from vico_eval.methods.parts import RequestTiles


class Decided(NamedTuple):
    """Of one document."""

    media: str | None
    """Digest of its tiles."""

    grids: tuple[tuple[int, ...], ...]
    """Columns, rows and tiles of each image or frame."""

    compressed: tuple[int, ...]
    """Places of the compressed tiles."""


class EarlierDecisions:
    """The decisions of a finished run, read from its record and accounts.

    Raises:
        ConfigError: the folder holds no finished run of ViCO, or one whose accounts don't say which tiles were
            compressed.
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
            ValueError: the run has no decision about this document, or was asked about other pictures or tiles.
        """
        decided = self._decided.get(tiles.key)
        if decided is None:
            raise ValueError(
                f"the run in decisions_from={self._folder} has no answer to it. Repeat that run (resume=true), or run "
                "it on the same documents."
            )
        if (decided.media, decided.grids) != (tiles.media, tiles.grids):
            then, now = (sum(count for *_, count in grids) for grids in (decided.grids, tiles.grids))
            how = f"{then} tiles, and it has {now} here" if then != now else "other tiles"
            raise ValueError(
                f"the run in decisions_from={self._folder} saw {how}. Cut pictures as that run did (max_tiles, "
                "total_max_tiles, num_frames), from the same data."
            )
        compressed = torch.zeros(tiles.num_tiles, dtype=torch.bool)
        compressed[list(decided.compressed)] = True
        return compressed

    def _read_record(self) -> str:
        file = Path(self._folder) / "record.json"
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            method, sha256 = str(record["method"]), str(record["checkpoint"]["sha256"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"decisions_from={self._folder} holds no readable record.json ({error!r}); expected the record_dir of "
                "a finished run of ViCO."
            ) from error
        if "vico" not in method.split("+"):
            raise ConfigError(
                f"decisions_from={self._folder} is a run of method {method!r}; expected one of vico, whose decisions "
                "these are to be."
            )
        return sha256

    def _read(self, key: str, account: Mapping[str, Any]) -> Decided:
        try:
            grids = tuple(tuple(map(int, grid)) for grid in account["grids"])
            return Decided(account["media"], grids, tuple(map(int, account["compressed"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the run in decisions_from={self._folder} does not say which tiles of {key} were compressed "
                f"({error!r}). It may be of an earlier version: run ViCO again."
            ) from error
