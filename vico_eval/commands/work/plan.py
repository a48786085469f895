"""Planning of the lmms-eval commands that fill a suite's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from vico_eval.budgets import told
from vico_eval.cards import Card, Checkpoints, Weights, select_cards
from vico_eval.commands.work.launcher import Launching
from vico_eval.errors import ConfigError

ModelArgs = Mapping[str, str | int | float | bool]

ALL_WEIGHTS = "all"
"""Stands for all kinds of weights in servers by kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One benchmark of a row."""

    benchmark: str
    """The benchmark's title."""

    tasks: tuple[str, ...]
    """Its name in lmms-eval's `--tasks`."""

    results: tuple[str, ...]
    """The tasks in its results."""

    model_args: ModelArgs = field(default_factory=dict)
    """Its model arguments, in addition to a row's own."""

    documents: int | None = None
    """Number of its documents in a run, if known in advance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The conditions that all rows of a table share."""

    cells: tuple[Cell, ...]
    include_path: Path
    checkpoints: Checkpoints
    batch_size: int
    device: str
    launching: Launching = field(default_factory=Launching)
    limit: int | None = None
    """First documents of each task; None for all."""

    model_args: ModelArgs = field(default_factory=dict)
    """Arguments of every row's model, which override a card's."""

    budgets: tuple[float, ...] = ()
    """Shares of visual tokens to keep, one run each, for rows that would otherwise take another row's ratio."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables with which lmms-eval finds the documents."""

    servers: Mapping[str, str] = field(default_factory=dict)
    """Addresses of vLLM servers by kind of weights."""

    def server(self, weights: Weights) -> str | None:
        """Return the server with the decoder of these weights; None without servers.

        Raises:
            ConfigError: other weights have a server, but these don't.
        """
        if not self.servers:
            return None
        found = self.servers.get(weights, self.servers.get(ALL_WEIGHTS))
        if found is None:
            raise ConfigError(
                f"--server names none for {weights} weights ({self.checkpoints.of(weights)}), which rows of this table "
                f"have. Add {weights}=http://..., or leave out these rows."
            )
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """The cells of a row, or of one of its seeds, that a single model can answer; they share a folder."""

    name: str
    system: str
    title: str
    """The row's title; runs with the same title form one row."""

    folder: Path
    """lmms-eval's `--output_path`."""

    cells: tuple[Cell, ...]
    launcher: tuple[str, ...]
    """The command that starts a Python module, `python -m` or accelerate's launcher, after the `--launch` prefix; it
    doesn't change answers."""

    arguments: tuple[str, ...]
    """lmms-eval's options without its tasks."""

    model: str = ""
    """The model's name in lmms-eval."""

    model_args: Mapping[str, object] = field(default_factory=dict)
    """The model arguments in `arguments`, one by one."""

    more_args: Mapping[str, object] = field(default_factory=dict)
    """Further model arguments that don't change answers, so that a run isn't repeated for them."""

    device: str | None = None
    """lmms-eval's `--device`, which doesn't change answers; None lets the model choose."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """The command's environment variables."""

    budget: float | None = None
    """Planned share of visual tokens to keep; None if the row takes none."""

    after: str | None = None
    """The run that must be finished before this one starts."""

    checkpoints: tuple[str, ...] = ()
    """The checkpoints that it loads."""

    def command(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """Return the lmms-eval command that answers these cells."""
        return (*self.launcher, "lmms_eval", *self.options(cells))

    def options(self, cells: Sequence[Cell], **more: object) -> tuple[str, ...]:
        """Return the command without the part that starts lmms-eval.

        Args:
            cells: the cells to answer.
            **more: further model arguments.
        """
        tasks = dict.fromkeys(task for cell in cells for task in cell.tasks)
        arguments = list(self.arguments)
        for name, value in {**self.more_args, **more}.items():
            arguments[arguments.index("--model_args") + 1] += f",{name}={value}"
        device = ("--device", self.device) if self.device is not None else ()
        return (*device, *arguments, "--tasks", ",".join(tasks))

    @property
    def documents(self) -> int | None:
        """Number of documents of all cells, if known for each."""
        counts = [cell.documents for cell in self.cells]
        return None if None in counts else sum(count for count in counts if count is not None)


def plan_runs(
    cards: Mapping[str, Card],
    rows: Sequence[str],
    conditions: Conditions,
    runs_root: Path,
    num_seeds: int | None = None,
) -> list[PlannedRun]:
    """Plan the runs that fill the named rows (all rows if `rows` is empty), starting with those that others wait for.

    The first row, the baseline, is always included, and so is a row that another one takes its ratio from, unless the
    conditions have budgets. Benchmarks whose model needs other arguments are separate runs.

    Args:
        num_seeds: number of a card's seeds to run; None for all.

    Raises:
        ConfigError: a row is unknown, a card has fewer seeds, or a path can't be part of lmms-eval's argument strings.
    """
    loaded = filter(None, (getattr(conditions.checkpoints, kind) for kind in get_args(Weights)))
    for path in (runs_root, conditions.include_path, *loaded):
        # lmms-eval passes them in strings like "a=1,b=2", without quoting.
        if set(",=") & set(str(path)):
            raise ConfigError(f"{path} has a comma or an equals sign in its name; lmms-eval can't take either.")
    chosen = select_cards(cards, rows)
    baseline = next(iter(cards))
    names = {baseline, *(card.name for card in chosen)}
    if not conditions.budgets:
        names |= {card.ratio_from for card in chosen if card.ratio_from is not None}
    most = max((len(card.seeds) for card in chosen), default=0)
    if num_seeds is not None and most and num_seeds > most:
        raise ConfigError(f"--seeds is {num_seeds}; the cards of these rows have {most} seeds each.")
    runs = [
        _planned(card, seed, budget, cells, conditions, runs_root)
        for card in cards.values()
        if card.name in names
        for seed in (card.seeds[:num_seeds] or (None,))
        for budget in (conditions.budgets if card.ratio_from is not None else ()) or (None,)
        for cells in _same_model(conditions.cells)
    ]
    awaited = {run.after for run in runs}
    return sorted(runs, key=lambda run: run.name not in awaited)


def _same_model(cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
    """Group cells by model arguments; those without their own arguments come first."""
    groups: dict[tuple[tuple[str, object], ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(sorted(cell.model_args.items())), []).append(cell)
    return [tuple(group) for _, group in sorted(groups.items(), key=lambda item: len(item[0]) > 0)]


def _planned(
    card: Card,
    seed: int | None,
    budget: float | None,
    cells: tuple[Cell, ...],
    conditions: Conditions,
    runs_root: Path,
) -> PlannedRun:
    own_args = {name: conditions.model_args.get(name, value) for name, value in cells[0].model_args.items()}
    part = "".join(f".{name}" if value is True else f".{name}-{value}" for name, value in sorted(own_args.items()))
    share: dict[str, float] = {} if budget is None else {card.share_argument: told(budget, card.share_argument)}
    name = (card.name if seed is None else f"{card.name}-seed{seed}") + part
    # Runs at several budgets are beside each other.
    name += "".join(f".{argument}-{value:g}" for argument, value in share.items())
    folder = runs_root / name
    checkpoints = conditions.checkpoints
    model_args: dict[str, object] = {"pretrained": checkpoints.of(card.weights)}
    loaded = [checkpoints.of(card.weights)]
    if card.flash_from is not None:
        model_args["flash_from"] = checkpoints.of(card.flash_from)
        loaded.append(checkpoints.of(card.flash_from))
    after = f"{card.ratio_from}{part}" if card.ratio_from is not None and budget is None else None
    if after is not None:
        model_args["ratio_from"] = runs_root / after
    model_args |= share
    if seed is not None:
        model_args["seed"] = seed
    model_args |= {**card.model_args, **checkpoints.model_args.get(card.name, {}), **own_args, **conditions.model_args}
    more_args = _more_args(model_args, conditions.launching, runs_root)
    if (server := conditions.server(card.weights)) is not None:
        more_args["server"] = server
    is_placed = "device_map" in {**model_args, **more_args}  # which decides on the devices
    # Answers of a stopped or failed command are kept, and a document that can't be answered doesn't stop the others.
    model_args |= {"record_dir": folder, "resume": True, "keep_going": True}
    return PlannedRun(
        name=name,
        system=card.name,
        title=card.title,
        folder=folder,
        cells=cells,
        model=card.lmms_model,
        model_args=model_args,
        launcher=conditions.launching.words(conditions.device),
        arguments=(
            *("--model", card.lmms_model),
            *("--model_args", ",".join(f"{key}={value}" for key, value in model_args.items())),
            *("--include_path", str(conditions.include_path), "--batch_size", str(conditions.batch_size)),
            *("--log_samples", "--output_path", str(folder)),
            *(("--limit", str(conditions.limit)) if conditions.limit is not None else ()),
        ),
        device=None if is_placed else conditions.device,
        environment={
            **conditions.environment,
            **({"ACCELERATE_USE_CPU": "true"} if conditions.device == "cpu" else {}),
        },
        more_args=more_args,
        checkpoints=tuple(loaded),
        budget=budget,
        after=after,
    )


def _more_args(model_args: dict[str, object], launching: Launching, runs_root: Path) -> dict[str, object]:
    """Move arguments that don't change answers out of `model_args`, and return them."""
    previews = model_args.pop("previews", True)
    # One folder for all rows: rows with the same tiling share previews.
    more: dict[str, object] = {"previews": runs_root / "previews" if previews is True else previews}
    if launching.gpus_per_process is not None:
        more["gpus_per_process"] = launching.gpus_per_process
        if "device_map" not in model_args:
            more["device_map"] = "auto"
    return more
