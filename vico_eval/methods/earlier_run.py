"""What an earlier run measured, for methods that are to spend as much (`ratio_from=FOLDER`), and its accounts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vico_eval.errors import ConfigError

Document = tuple[Any, Any]
"""Split and doc_id."""


@dataclass(frozen=True, kw_only=True)
class TargetRatio:
    """Hyper-parameters of a method that can be set by the share of visual tokens it is to leave."""

    target_ratio: float | None = None
    """Visual tokens averaged over all decoder layers, as a share of those at its input, in (0, 1]."""

    ratio_from: str | None = None
    """Folder of an earlier run, say ViCO's, whose measured share becomes target_ratio."""

    def __post_init__(self) -> None:
        if self.ratio_from is not None:
            take_measured_share(self, "target_ratio", self.ratio_from)
        if self.target_ratio is not None and not 0 < self.target_ratio <= 1:
            raise ConfigError(f"got target_ratio={self.target_ratio}; expected a share of visual tokens in (0, 1].")


def take_measured_share(config: object, field: str, folder: str) -> None:
    """Fill a field of a frozen configuration with the share of visual tokens that an earlier run measured.

    A run's record then has both and says which number the folder stood for.

    Raises:
        ConfigError: the field was given with another number; or as `visual_token_share`.
    """
    measured = visual_token_share(folder)
    if getattr(config, field) not in (None, measured):
        raise ConfigError(f"got {field} and ratio_from; give one: ratio_from measures it.")
    object.__setattr__(config, field, measured)


def visual_token_share(folder: str) -> float:
    """Visual tokens averaged over decoder layers, as a share of the uncompressed ones; the mean over benchmarks.

    Raises:
        ConfigError: the folder holds no finished run, or one that saved no visual token.
    """
    shares = []
    for by_document in finished_accounts(folder, "ratio_from").values():
        accounts = by_document.values()
        uncompressed = sum(account["visual_tokens_uncompressed"] for account in accounts)
        if uncompressed:
            shares.append(sum(fmean(account["visual_tokens_per_layer"]) for account in accounts) / uncompressed)
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
        tiles = sum(account["tiles"] for account in accounts)
        if tiles:
            ratios[task] = sum(account["compressed_tiles"] for account in accounts) / tiles
    if not any(ratios.values()):
        raise ConfigError(f"the run in ratio_from={folder} compressed no tile; expected a run of ViCO.")
    return ratios


def finished_accounts(folder: str, argument: str) -> dict[str, dict[Document, Mapping[str, Any]]]:
    """Accounts by task and document, once the harness has said how many there are and all of them have ended.

    Args:
        folder: of the run.
        argument: the name by which the method takes it, for messages.

    Raises:
        ConfigError: the folder holds no run, or one that is not finished.
    """
    path = Path(folder)
    if not list(path.glob("answers.rank*.jsonl")):
        raise ConfigError(
            f"{argument}={folder} holds no answers.rank*.jsonl; expected the record_dir of a finished run of ViCO."
        )
    accounts: dict[str, dict[Document, Mapping[str, Any]]] = {}
    for line in _lines(path, "answers"):
        if isinstance(line.get("account"), dict):
            accounts.setdefault(line["task"], {})[line["split"], line["doc_id"]] = line["account"]
    if not accounts:
        raise ConfigError(f"the run in {argument}={folder} has no answer yet; wait until it is finished.")
    ended = {task: set(answered) for task, answered in accounts.items()}
    for line in _lines(path, "failures"):
        if line["task"] in ended:
            ended[line["task"]].add((line["split"], line["doc_id"]))
    expected = _documents_by_lmms_eval(path)
    finished = _finished_by_vlmevalkit(path)
    unfinished = [
        f"{task} (answers to {len(documents)} of {expected.get(task, 'an unknown number of')} documents)"
        for task, documents in sorted(ended.items())
        if len(documents) != expected.get(task) and task not in finished
    ]
    if unfinished:
        raise ConfigError(
            f"the run in {argument}={folder} is not finished, so it knows of some documents only: "
            f"{', '.join(unfinished)}. Expected results of lmms-eval or VLMEvalKit in that folder that count as many; "
            "repeat the run's command, with the folder as both record_dir and --output_path."
        )
    return accounts


def _lines(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Lines about documents; one that was cut off, or is of another kind, is none: its document is then missing."""
    for file in sorted(folder.glob(f"{kind}.rank*.jsonl")):
        for text in file.read_bytes().split(b"\n"):
            line = _object(text)
            if {"task", "split", "doc_id"} <= line.keys() and isinstance(line["doc_id"], (int, str)):
                yield line


def _documents_by_lmms_eval(folder: Path) -> dict[str, int]:
    """How many documents each task's newest results count; files are named by their date."""
    counts = {}
    for file in sorted(folder.rglob("*_results.json"), key=lambda file: file.name):
        results = _object(file.read_bytes())
        samples, config = results.get("n-samples"), results.get("config")
        if not isinstance(samples, dict) or not isinstance(config, dict):
            continue  # of a task's own, or half a file
        for task, numbers in samples.items():
            with suppress(KeyError, TypeError, ValueError):
                left = int(numbers["original"]) - int(config.get("offset") or 0)
                counts[task] = min(int(numbers["effective"]), left)
    return counts


def _finished_by_vlmevalkit(folder: Path) -> set[str]:
    """Data sets that VLMEvalKit has scored, which it does once every document has an answer."""
    finished = set()
    for file in folder.glob("*/status.json"):
        datasets = _object(file.read_bytes()).get("datasets")
        for name, status in datasets.items() if isinstance(datasets, dict) else ():
            if isinstance(status, dict) and status.get("metrics"):
                finished.add(name)
    return finished


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`; an empty one where there is none."""
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
