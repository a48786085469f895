"""From rows of a table to the lmms-eval commands that fill them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vico_eval.commands.cards import Card, Checkpoints, select_cards
from vico_eval.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """What every row of a table has in common."""

    tasks: tuple[str, ...]
    include_path: Path
    checkpoints: Checkpoints
    batch_size: int
    device: str
    limit: int | None = None
    """First documents of each task; None for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """One lmms-eval process: a row, or one seed of a row."""

    name: str
    system: str
    title: str
    """Of the row; runs that share it are seeds of one row."""

    folder: Path
    """lmms-eval's `--output_path`."""

    command: tuple[str, ...]
    after: str | None = None
    """Run that has to be finished before this one starts."""

    checkpoints: tuple[str, ...] = ()
    """Those that it loads."""


def plan_runs(
    cards: Mapping[str, Card],
    rows: Sequence[str],
    benchmark: Benchmark,
    runs_root: Path,
    num_seeds: int | None = None,
) -> list[PlannedRun]:
    """The runs that fill the named rows (all of them where `rows` is empty), those that others wait for first.

    The first row, which counts as 100%, is always among them, and so is a row that another one takes its ratio from.

    Args:
        num_seeds: how many of a card's seeds to run; None for all.

    Raises:
        ConfigError: an unknown row, or a folder that lmms-eval's argument strings can't hold.
    """
    for path in (runs_root, benchmark.include_path):
        # lmms-eval passes both through strings like "a=1,b=2" and has no way to quote.
        if set(",=") & set(str(path)):
            raise ConfigError(f"Folder {path} has a comma or an equals sign in its name; lmms-eval can't take either.")
    chosen = select_cards(cards, rows)
    baseline = next(iter(cards))
    names = {baseline, *(card.name for card in chosen), *(card.ratio_from for card in chosen)}
    runs = [
        _planned(card, seed, benchmark, runs_root)
        for card in cards.values()
        if card.name in names
        for seed in (card.seeds[:num_seeds] or (None,))
    ]
    awaited = {run.after for run in runs}
    return sorted(runs, key=lambda run: run.name not in awaited)


def _planned(card: Card, seed: int | None, benchmark: Benchmark, runs_root: Path) -> PlannedRun:
    name = card.name if seed is None else f"{card.name}-seed{seed}"
    folder = runs_root / name
    model_args: dict[str, object] = {"pretrained": benchmark.checkpoints.of(card.weights)}
    checkpoints = [benchmark.checkpoints.of(card.weights)]
    if card.flash_from is not None:
        model_args["flash_from"] = benchmark.checkpoints.of(card.flash_from)
        checkpoints.append(benchmark.checkpoints.of(card.flash_from))
    if card.ratio_from is not None:
        model_args["ratio_from"] = runs_root / card.ratio_from
    if seed is not None:
        model_args["seed"] = seed
    model_args |= card.model_args | benchmark.checkpoints.model_args.get(card.name, {})
    model_args["record_dir"] = folder
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        # Stated, since accelerate otherwise takes every GPU it sees and warns about each default.
        *("--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *(("--cpu",) if benchmark.device == "cpu" else ()),
        *("-m", "lmms_eval", "--model", card.lmms_model),
        *("--model_args", ",".join(f"{key}={value}" for key, value in model_args.items())),
        *("--tasks", ",".join(benchmark.tasks), "--include_path", str(benchmark.include_path)),
        *("--batch_size", str(benchmark.batch_size), "--device", benchmark.device),
        *("--log_samples", "--output_path", str(folder)),
        *(("--limit", str(benchmark.limit)) if benchmark.limit is not None else ()),
    ]
    return PlannedRun(
        name=name,
        system=card.name,
        title=card.title,
        folder=folder,
        command=tuple(command),
        checkpoints=tuple(checkpoints),
        after=card.ratio_from,
    )
