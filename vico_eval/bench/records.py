"""What measurements share: shapes, measuring in turns, and records with a table beside them."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from vico_eval.files import write_json

T = TypeVar("T")

Readme = Callable[[dict[str, dict[str, Any]]], str]
"""Makes the README beside records from all of them by name."""

DTYPES = ("float32", "bfloat16", "float16")

SIZES = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "vocab_size": 1024,
    },
    "0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
}
"""Qwen3's 0.6B and 8B, and one for a quick look."""


def in_turns(
    baseline: Callable[[], float], others: Mapping[str, Callable[[], float]], rounds: int
) -> tuple[list[list[float]], dict[str, list[float]]]:
    """Seconds of several things, each between two runs of the baseline.

    Args:
        baseline: runs once and returns its seconds.
        others: by title, the same.
        rounds: how often everything is run.

    Returns:
        The baseline's, [rounds][others + 1]: entry i stands before the i-th of the others and entry i + 1 behind it.
        And the others' by title, [rounds] each.
    """
    before_and_behind: list[list[float]] = []
    seconds: dict[str, list[float]] = {title: [] for title in others}
    with tqdm(total=rounds * (2 * len(others) + 1), unit="run") as bar:

        def timed(title: str, measure: Callable[[], float]) -> float:
            bar.set_description(title)
            own = measure()
            bar.update()
            return own

        for _ in range(rounds):
            before_and_behind.append([timed("baseline", baseline)])
            for title, measure in others.items():
                seconds[title].append(timed(title, measure))
                before_and_behind[-1].append(timed("baseline", baseline))
    return before_and_behind, seconds


def neighbours(before_and_behind: Sequence[Sequence[float]], place: int) -> list[float]:
    """Mean of the baseline's seconds before and behind one of the things that `in_turns` measured, [rounds].

    Args:
        before_and_behind: of `in_turns`.
        place: which of the others it is, from 0.
    """
    return [fmean(baseline[place : place + 2]) for baseline in before_and_behind]


def in_rounds(measures: Mapping[str, Callable[[], T]], rounds: int, minutes: float) -> dict[str, list[T]]:
    """What several things measure, all of them in every round, so that a noisy minute of the machine hits all alike.

    Every other round runs backwards. Everything runs once before the first round, unused: kernels are chosen and memory
    is taken then. No round is begun that would not end in time if it took as long as the longest so far, but for the
    first.

    Args:
        measures: by title, each measuring once.
        rounds: the most there are.
        minutes: for all of it.

    Returns:
        By title, [rounds], at least one.
    """
    start = time.monotonic()
    results: dict[str, list[T]] = {title: [] for title in measures}
    longest = 0.0
    with tqdm(total=(rounds + 1) * len(measures), unit="run") as bar:

        def measure(title: str) -> T:
            bar.set_description(title)
            result = measures[title]()
            bar.update()
            return result

        for title in measures:
            measure(title)
        for number in range(rounds):
            began = time.monotonic()
            if number and began + longest - start > 60 * minutes:
                break
            for title in list(measures)[:: -1 if number % 2 else 1]:
                results[title].append(measure(title))
            longest = max(longest, time.monotonic() - began)
    return results


def conditions(script: str | None, device: str) -> dict[str, Any]:
    """What a record says of every run: command, date, versions and what computed.

    Args:
        script: path of a benchmark; None is the command line itself.
        device: what computed.
    """
    import torch  # only here: a script that measures its own memory must not hold it

    return origin(script, ("vico-eval", "torch", "transformers")) | {
        "processor": processor(device),
        "threads": torch.get_num_threads(),
    }


def origin(script: str | None, packages: Sequence[str], *, written: Callable[[str], str] = str) -> dict[str, Any]:
    """Command, date and versions.

    Args:
        script: as in `conditions`.
        packages: whose versions matter.
        written: a word of the command as it may be written, which is without keys.
    """
    return {
        "version": 1,
        "command": shlex.join(
            [*(["vico-eval"] if script is None else ["python", script]), *map(written, sys.argv[1:])]
        ),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {package: version(package) for package in packages} | {"python": platform.python_version()},
    }


def beside_neighbours(
    before_and_behind: Sequence[Sequence[float]], seconds: Sequence[float], place: int
) -> dict[str, Any]:
    """Speed-up of one of the things that `in_turns` measured, over the mean of the baseline before and behind it.

    Args:
        before_and_behind: of `in_turns`.
        seconds: its own, [rounds].
        place: which of the others it is, from 0.

    Returns:
        `seconds` and `speedups` [rounds], their median `speedup`, and `speedup_quartiles`.
    """
    speedups = [whole / own for whole, own in zip(neighbours(before_and_behind, place), seconds, strict=True)]
    low, median, high = map(float, np.quantile(speedups, [0.25, 0.5, 0.75]))
    return {"seconds": list(seconds), "speedups": speedups, "speedup": median, "speedup_quartiles": [low, high]}


def processor(device: str) -> str:
    """The model's name of what computes."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def made_by(record: Mapping[str, Any]) -> str:
    """Table cells of a record: rounds, threads, versions, date, command."""
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    return f"{record['rounds']} | {record['threads']} | {versions} | {record['date']} | `{record['command']}`"


def records_table(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of a README's last table: every record with what `made_by` says of it."""
    lines = ["| record | rounds | threads | versions | date | command |", "|:--|--:|--:|:--|:--|:--|"]
    return lines + [f"| [{name}]({name}.json) | {made_by(record)} |" for name, record in records.items()]


def write_record(record: Mapping[str, Any], out: Path, name: str, readme: Readme) -> Path:
    """Write a record, and a README that shows it with those that are there already; returns the record's file.

    Args:
        record: what was measured.
        out: folder.
        name: of the record.
        readme: of all records in the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.json"
    write_json(file, record)
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))}
    (out / "README.md").write_text(readme(records), encoding="utf-8")
    return file
