"""Start-up times: `--help`, and the time that registering the models adds to lmms-eval.

Each measurement starts a new Python process, and all measurements take turns.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from vico_eval.bench.records import in_rounds, origin, processor, records_table

COMMAND = "from vico_eval.cli import main; main()"

# lmms-eval registers entry points when it is imported. Here this is repeated after unloading our modules.
REGISTER = """
import sys, time
from lmms_eval.models.registry_v2 import ModelRegistryV2
for name in [name for name in sys.modules if name.split(".")[0] == "vico_eval"]:
    del sys.modules[name]
start = time.perf_counter()
registry = ModelRegistryV2()
registry.load_entrypoint_manifests()
seconds = time.perf_counter() - start
assert "vico_internvl" in registry.list_model_names()
print(seconds)
"""

GOALS = {"vico-eval --help": 0.3, "registering in lmms-eval": 0.05}
"""Goals in seconds; the other measurements are for comparison."""


def seconds_of(*arguments: str) -> float:
    """Return the seconds of a Python process from start to end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def seconds_to_register() -> float:
    """Return the seconds that lmms-eval takes to find and register this package's models."""
    done = subprocess.run([sys.executable, "-c", REGISTER], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


MEASURES: dict[str, Callable[[], float]] = {
    "an empty Python": partial(seconds_of, "-c", "pass"),
    "vico-eval --help": partial(seconds_of, "-c", COMMAND, "--help"),
    "vico-eval report --help": partial(seconds_of, "-c", COMMAND, "report", "--help"),
    "vico-eval methods": partial(seconds_of, "-c", COMMAND, "methods"),
    "import of lmms_eval.models": partial(seconds_of, "-c", "import lmms_eval.models"),
    "registering in lmms-eval": seconds_to_register,
}


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Start-up",
        "",
        "Seconds from the start to the end of a Python process, median (quartiles) over the rounds. For registering,",
        "only the call itself is timed, which `import lmms_eval.models` makes too. Written by",
        "`benchmarks/startup.py`.",
        "",
        "| measurement | processor | seconds | goal |",
        "|:--|:--|--:|--:|",
    ]
    for record in records.values():
        for title, seconds in record["seconds"].items():
            goal = f"below {GOALS[title]}" if title in GOALS else ""
            lines.append(f"| {title} | {record['processor']} | {_interval(seconds)} | {goal} |")
    lines += ["", *records_table(records)]
    return "\n".join(lines) + "\n"


def _interval(seconds: Sequence[float]) -> str:
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def measure(rounds: int) -> dict[str, Any]:
    """Run all measurements and return the record with seconds, [rounds] each."""
    seconds = in_rounds(MEASURES, rounds, minutes=10)
    return origin("benchmarks/startup.py", ("vico-eval", "lmms-eval", "typer")) | {
        "processor": processor("cpu"),
        "threads": 1,
        "rounds": len(seconds["vico-eval --help"]),
        "seconds": seconds,
    }


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return one line per measurement."""
    return [f"{title:<28} {median(own):.3f} s" for title, own in record["seconds"].items()]
