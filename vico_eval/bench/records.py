"""Shared code of the measurements: model shapes, interleaved timing, and records with a README table."""

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
"""Renders the README of a folder of records, given by name."""

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
"""Qwen3's 0.6B and 8B, and a small one for quick checks."""


def in_turns(
    baseline: Callable[[], float], others: Mapping[str, Callable[[], float]], rounds: int
) -> tuple[list[list[float]], dict[str, list[float]]]:
    """Time several candidates, each between two runs of the baseline.

    Args:
        baseline: runs once and returns the seconds it took.
        others: the candidates by title, each like `baseline`.
        rounds: number of repetitions.

    Returns:
        The baseline's seconds, [rounds][others + 1], where entry i precedes the i-th candidate and entry i + 1 follows
        it; and the candidates' seconds by title, [rounds] each.
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
    """Return the mean of the baseline's seconds before and after one candidate of `in_turns`, [rounds].

    Args:
        before_and_behind: the baseline's seconds from `in_turns`.
        place: the candidate's index, from 0.
    """
    return [fmean(baseline[place : place + 2]) for baseline in before_and_behind]


def in_rounds(measures: Mapping[str, Callable[[], T]], rounds: int, minutes: float) -> dict[str, list[T]]:
    """Run several measurements in every round, so that disturbances of the machine affect all of them alike.

    Every other round runs in reverse order. Before the first round everything runs once as a warm-up, in which kernels
    are chosen and memory is allocated. Except for the first, a round is started only if it would finish in time when it
    takes as long as the longest round so far.

    Args:
        measures: the measurements by title, each measuring once per call.
        rounds: the maximum number of rounds.
        minutes: the time limit for the warm-up and all rounds.

    Returns:
        The results by title, [rounds], at least one round.
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
    """Return the conditions in every record: command, date, versions, processor and threads.

    Args:
        script: the benchmark script's path; None means the `vico-eval` command.
        device: the device that was measured.
    """
    import torch  # imported late, because scripts that measure their own memory must not load it

    return origin(script, ("vico-eval", "torch", "transformers")) | {
        "processor": processor(device),
        "threads": torch.get_num_threads(),
    }


def origin(script: str | None, packages: Sequence[str], *, written: Callable[[str], str] = str) -> dict[str, Any]:
    """Return command, date and versions.

    Args:
        script: as in `conditions`.
        packages: the packages whose versions are recorded.
        written: redacts keys in a word of the command.
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
    """Compute the speed-up of one candidate of `in_turns` over the mean of the baseline before and after it.

    Args:
        before_and_behind: the baseline's seconds from `in_turns`.
        seconds: the candidate's seconds, [rounds].
        place: the candidate's index, from 0.

    Returns:
        `seconds` and `speedups` [rounds], their median `speedup`, and `speedup_quartiles`.
    """
    speedups = [whole / own for whole, own in zip(neighbours(before_and_behind, place), seconds, strict=True)]
    low, median, high = map(float, np.quantile(speedups, [0.25, 0.5, 0.75]))
    return {"seconds": list(seconds), "speedups": speedups, "speedup": median, "speedup_quartiles": [low, high]}


def processor(device: str) -> str:
    """Return the model name of the GPU or CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def made_by(record: Mapping[str, Any]) -> str:
    """Return a record's table cells for rounds, threads, versions, date and command."""
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    return f"{record['rounds']} | {record['threads']} | {versions} | {record['date']} | `{record['command']}`"


def records_table(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a README's last table, which lists the conditions of every record."""
    lines = ["| record | rounds | threads | versions | date | command |", "|:--|--:|--:|:--|:--|:--|"]
    return lines + [f"| [{name}]({name}.json) | {made_by(record)} |" for name, record in records.items()]


def write_record(record: Mapping[str, Any], out: Path, name: str, readme: Readme) -> Path:
    """Write a record and a README of all records in the folder; return the record's path.

    Args:
        record: the measurements.
        out: the folder.
        name: the record's name.
        readme: renders the README from all records in the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.json"
    write_json(file, record)
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))}
    (out / "README.md").write_text(readme(records), encoding="utf-8")
    return file
