"""`vico-eval throughput serve`: checks what it got, runs the load under a bar, writes and prints what was measured."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vico_eval.bench.records import origin, processor
from vico_eval.bench.serve.answer import Outcome
from vico_eval.bench.serve.client import Client, Server, look_at, open_connections
from vico_eval.bench.serve.probe import find_overhead
from vico_eval.bench.serve.runner import Cell, Plan, Stop, Tell, Turn, run_load
from vico_eval.bench.serve.summary import CellSummary, summarize
from vico_eval.bench.serve.table import Measured, flop_bounds, measurements, read_published, table_4, to_csv
from vico_eval.bench.serve.tokens import TextMaker, find_folder, load_tokenizer, read_config
from vico_eval.bench.serve.workload import ImageLoad, Setting, TextLoad, Workload
from vico_eval.commands.output import check_writable, message_console, results_console
from vico_eval.errors import ConfigError
from vico_eval.paths import free_path
from vico_eval.report.grid import grid_to_latex, grid_to_terminal

REQUESTS, SUMMARY, CSV, LATEX = "requests.jsonl", "summary.json", "table4.csv", "table4.tex"
MUCH_BUSY = 0.7
FAILED = 1
SIGNALLED = 128


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """As given on the command line; `cli_throughput.py` says what they mean."""

    url: str | None
    compare: tuple[str, ...]
    tokenizer: str | None
    images: Path | None
    model: str | None
    num_requests: int
    concurrency: int
    num_rounds: int
    max_tokens: int
    num_warmup: int
    timeout_s: float
    seconds: float | None
    seed: int | None
    out: Path | None


@dataclass(frozen=True)
class _Loaded:
    servers: list[Server]
    overheads: list[int]
    turns: list[Turn]
    stop: Stop


def measure_servers(options: ServeOptions) -> None:
    """Run it all. Ends with 1 if a number can't be relied on, with 130 after Ctrl-C.

    Raises:
        ConfigError: options that don't go together, a server that can't be measured.
        CheckpointError: no tokenizer.
        OutputError: the folder can't be written.
    """
    addresses = _addresses(options)
    workload, bounds = _workload(options)
    out = options.out or free_path(Path("runs") / "throughput-serve")
    if (out / SUMMARY).exists():
        raise ConfigError(f"{out} holds a measurement already. Give another folder with --out.")
    check_writable(out)
    plan = Plan(
        num_requests=options.num_requests,
        concurrency=options.concurrency,
        num_rounds=min(options.num_rounds, options.num_requests),
        num_warmup=options.num_warmup,
        seconds=options.seconds,
        seed=secrets.randbelow(2**32) if options.seed is None else options.seed,
    )
    console = message_console()
    _say_doubts(console, plan, workload)
    loaded = asyncio.run(_load(options, addresses, workload, plan, console, out / REQUESTS))
    cells = {
        cell: summarize(cell, loaded.turns, plan.num_requests)
        for server in loaded.servers
        for cell in (Cell(server.name, setting) for setting in workload.settings)
    }
    measured = Measured(cells, tuple(server.name for server in loaded.servers), bounds)
    published = read_published()
    grid = table_4(measured, published)
    record = _record(options, plan, loaded, measured)
    (out / SUMMARY).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (out / CSV).write_text(to_csv(measured, published), encoding="utf-8")
    (out / LATEX).write_text(grid_to_latex(grid, "tab:throughput"), encoding="utf-8")
    shown = results_console()
    for table in (measurements(measured), grid):
        shown.print(grid_to_terminal(table, shown.width))
    _close(console, loaded.stop, cells, out)


def _addresses(options: ServeOptions) -> dict[str, str]:
    """Address of each server by its name."""
    if (options.url is None) == (not options.compare):
        raise ConfigError("give the address of one server, or --compare NAME=URL for each of several; not both.")
    if options.url is not None:
        return {"server": options.url}
    addresses: dict[str, str] = {}
    for part in options.compare:
        name, equals, url = part.partition("=")
        if not (name and equals and url) or name in addresses:
            raise ConfigError(f"--compare got {part!r}; expected NAME=URL, each name once.")
        addresses[name] = url
    return addresses


def _workload(options: ServeOptions) -> tuple[Workload, dict[Setting, float]]:
    """What to send, and the bounds of operations where the decoder is known."""
    if options.images is not None:
        return ImageLoad(options.images), {}
    if options.tokenizer is None:
        raise ConfigError(
            "prompts of an exact length need the checkpoint's own tokenizer: give --tokenizer its folder, hub id or "
            "built-in name. Or send images with --images FOLDER."
        )
    folder = find_folder(options.tokenizer)
    config = read_config(folder)
    decoder = None if config is None else config.get_text_config()
    has_bound = decoder is not None and not getattr(decoder, "num_experts", None)
    return TextLoad(TextMaker(load_tokenizer(folder, config))), flop_bounds(decoder) if has_bound else {}


def _say_doubts(console: Console, plan: Plan, workload: Workload) -> None:
    least = plan.num_requests // plan.num_rounds
    if least < plan.concurrency:
        _say(
            console, f"A round has {least} requests, fewer than --concurrency: never are {plan.concurrency} in flight."
        )
    if isinstance(workload, ImageLoad) and workload.num_images < plan.num_requests:
        _say(
            console,
            f"{workload.num_images} images for {plan.num_requests} requests: a server that keeps what it has made of "
            "an image must not, or its numbers are too good (vLLM: --mm-processor-cache-gb 0).",
        )


async def _load(
    options: ServeOptions, addresses: dict[str, str], workload: Workload, plan: Plan, console: Console, file: Path
) -> _Loaded:
    async with open_connections(plan.concurrency) as connections:
        servers = [await look_at(connections[0], name, url, options.model) for name, url in addresses.items()]
        zero = time.perf_counter()
        clients = [
            Client(server, connections, max_tokens=options.max_tokens, timeout_s=options.timeout_s, zero=zero)
            for server in servers
        ]
        overheads = [await find_overhead(client, workload, str(plan.seed)) for client in clients]
        for server in servers:
            if not server.is_listed:
                _say(console, f"{server.name} does not list the model {server.model!r}, but answers for it.")
        total = plan.num_requests * len(workload.settings) * len(servers)
        with _bar(console, file, total) as tell:
            turns, stop = await run_load(clients, workload, overheads, plan, tell)
        return _Loaded(servers, overheads, turns, stop)


@contextmanager
def _bar(console: Console, path: Path, total: int) -> Iterator[Tell]:
    """A bar on the terminal, and a line in the file for every request."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeElapsedColumn(),
    )
    failed = 0
    with Progress(*columns, console=console) as progress, path.open("w", encoding="utf-8") as file:
        task = progress.add_task("warm-up", total=total, failed=0)

        def tell(turn: Turn, outcome: Outcome) -> None:
            nonlocal failed
            failed += bool(outcome.failure)
            where = {"server": turn.cell.server, "setting": turn.cell.setting.as_record(), "round": turn.round}
            file.write(json.dumps(where | outcome.as_record()) + "\n")
            description = f"{turn.cell.server}, {turn.cell.setting.title}, round {turn.round + 1}"
            progress.update(task, advance=1, description=description, failed=failed)

        yield tell


def _record(options: ServeOptions, plan: Plan, loaded: _Loaded, measured: Measured) -> dict[str, Any]:
    """Conditions and numbers."""
    return origin(None, ("vico-eval", "httpx", "transformers")) | {
        "client_processor": processor("cpu"),
        "mode": "text" if options.images is None else "images",
        "tokenizer": options.tokenizer,
        "plan": asdict(plan) | {"max_tokens": options.max_tokens, "timeout_s": options.timeout_s},
        "servers": [
            server.as_record() | {"tokens_besides_ours": overhead}
            for server, overhead in zip(loaded.servers, loaded.overheads, strict=True)
        ],
        "is_complete": all(one.is_complete for one in measured.cells.values()),
        "stopped_by": loaded.stop.reason or None,
        "cells": [_cell_record(measured, cell) for cell in measured.cells],
    }


def _cell_record(measured: Measured, cell: Cell) -> dict[str, Any]:
    speedup = measured.speedup(cell.server, cell.setting)
    return measured.cells[cell].as_record() | {
        "speedup": None if speedup is None else speedup.as_record(),
        "versus_first": measured.versus_first(cell.server, cell.setting).as_record(),
        "llm_only_bound": measured.bounds.get(cell.setting),
    }


def _close(console: Console, stop: Stop, cells: dict[Cell, CellSummary], out: Path) -> None:
    """Say what failed and where all is; end with what it means."""
    for cell, one in cells.items():
        for kind, failure in one.failures.items():
            words = "; ".join(failure["words"])
            _say(console, f"{cell.server}, {cell.setting.title}: {failure['count']} x {kind} ({words})")
    if (busy := max(one.client_busy for one in cells.values())) > MUCH_BUSY:
        _say(console, f"This program computed for up to {busy:.0%} of the time: its own speed limits the numbers.")
    if stop.reason:
        _say(console, f"INCOMPLETE: stopped by {stop.reason}. Numbers are of what was answered until then.")
    _say(console, f"Requests, summary and table: {out}")
    if stop.signal is not None:
        sys.exit(SIGNALLED + stop.signal)
    was_asked_for = stop.reason.startswith("the limit")
    if not all(one.is_sound or (was_asked_for and one.num_ok == one.num_requests) for one in cells.values()):
        sys.exit(FAILED)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
