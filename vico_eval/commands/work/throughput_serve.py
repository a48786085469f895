"""`vico-eval throughput serve`: checks options, runs the load with a progress bar, and writes and prints results."""

from __future__ import annotations

import asyncio
import json
import resource
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
from vico_eval.bench.serve.runner import LoadCell, Plan, Stop, Tell, Turn, run_load
from vico_eval.bench.serve.summary import CellSummary, summarize
from vico_eval.bench.serve.table import (
    TABLE4_NOTES,
    Measured,
    images_csv,
    images_grid,
    measurements,
    table4_speedups,
)
from vico_eval.bench.serve.tokens import TextMaker, find_folder, read_config
from vico_eval.bench.serve.workload import ImageLoad, TextLoad, Workload
from vico_eval.commands.output import check_writable, message_console, results_console
from vico_eval.commands.work.throughput_servers import api_key, server_addresses, server_models
from vico_eval.errors import ConfigError
from vico_eval.files import write_json
from vico_eval.paths import free_path
from vico_eval.report.speed.table4 import PROMPTS, VISUAL_TOKENS, Prompt, Quantity, table4_csv, table4_grid
from vico_eval.report.tables.grid import Grid, grid_to_markdown, grid_to_terminal
from vico_eval.report.tables.latex_table import grid_to_latex
from vico_eval.server_address import Address, Redactor

REQUESTS, SUMMARY = "requests.jsonl", "summary.json"
MUCH_BUSY = 0.7
FAILED = 1
SIGNALLED = 128

OTHER_FILES = 64
"""Number of open files besides connections."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of the command line; see `vico_eval/commands/throughput.py`."""

    url: str | None
    compare: tuple[str, ...]
    tokenizer: str | None
    images: Path | None
    models: tuple[str, ...]
    api_key_env: str | None
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
    """Run the measurement. Exits with 1 if a number is unreliable, and with 130 after Ctrl-C.

    Raises:
        ConfigError: options are incompatible, or a server can't be measured.
        CheckpointError: there is no tokenizer.
        OutputError: the folder can't be written.
    """
    addresses = server_addresses(options.url, options.compare)
    models = server_models(options.models, list(addresses))
    key = api_key(options.api_key_env)
    redactor = Redactor([key, *(secret for address in addresses.values() for secret in address.secrets)])
    workload, bounds = _workload(options)
    out = options.out or free_path(Path("runs") / "throughput-serve")
    check_writable(out)
    if (out / SUMMARY).exists():
        raise ConfigError(f"{out} already holds a measurement. Pass another folder as --out.")
    plan = Plan(
        num_requests=options.num_requests,
        concurrency=options.concurrency,
        num_rounds=min(options.num_rounds, options.num_requests),
        num_warmup=options.num_warmup,
        seconds=options.seconds,
        seed=secrets.randbelow(2**32) if options.seed is None else options.seed,
    )
    _check_files(plan)
    console = message_console()
    _say_doubts(console, plan, workload)
    load = _load(options, addresses, models, key, redactor, workload, plan, console, out / REQUESTS)
    loaded = asyncio.run(load)
    cells = {
        cell: summarize(cell, loaded.turns, plan.num_requests)
        for server in loaded.servers
        for cell in (LoadCell(server.name, setting) for setting in workload.settings)
    }
    measured = Measured(cells, tuple(server.name for server in loaded.servers), bounds)
    record = _record(options, plan, loaded, measured, redactor)
    write_json(out / SUMMARY, record)
    grid = _write_table(measured, "table4" if options.images is None else "images", out)
    shown = results_console()
    for table in (measurements(measured), grid):
        shown.print(grid_to_terminal(table, shown.width))
    _close(console, loaded.stop, cells, out)


def _workload(options: ServeOptions) -> tuple[Workload, dict[Prompt, dict[Quantity, float | None]]]:
    """Return the workload, and the bounds of operations if the model's config is known."""
    if options.images is not None:
        return ImageLoad(options.images), {}
    if options.tokenizer is None:
        raise ConfigError(
            "prompts of an exact length need the checkpoint's own tokenizer: give --tokenizer its folder, hub id or "
            "built-in name. Or send images with --images FOLDER."
        )
    from vico_eval.families.internvl.tokenizers import read_tokenizer

    folder = find_folder(options.tokenizer)
    config = read_config(folder)
    return TextLoad(TextMaker(read_tokenizer(folder, config))), {} if config is None else _bounds(config)


def _bounds(config: Any) -> dict[Prompt, dict[Quantity, float | None]]:
    """Return the bounds for the paper's prompts, which are sent to every model. A model with other tiles only has a
    bound of its encoder."""
    from vico_eval.bench.table4 import bounds, visual_tokens  # loads torch, which images can do without
    from vico_eval.families.internvl.config import VicoInternVLConfig

    if isinstance(config, VicoInternVLConfig) and visual_tokens(config, 0) != VISUAL_TOKENS:
        config = config.get_text_config()
    found = {(text, share): bounds(config, text, share) for text, share in PROMPTS}
    return {prompt: {"llm_only": one.llm_only, "end_to_end": one.end_to_end} for prompt, one in found.items()}


def _check_files(plan: Plan) -> None:
    """Raise ConfigError if this process may not open a connection for every request in flight."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and plan.num_connections + OTHER_FILES > most:
        raise ConfigError(
            f"--concurrency {plan.concurrency} needs {plan.num_connections + OTHER_FILES} open files, and {most} are "
            "allowed here. Allow more (ulimit -n), or have fewer requests in flight."
        )


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
    options: ServeOptions,
    addresses: dict[str, Address],
    models: dict[str, str | None],
    key: str | None,
    redactor: Redactor,
    workload: Workload,
    plan: Plan,
    console: Console,
    file: Path,
) -> _Loaded:
    async with open_connections(plan.num_connections, key) as connections:
        looks = [
            await look_at(connections[0], name, address, models[name], redactor) for name, address in addresses.items()
        ]
        servers = [server for server, _ in looks]
        zero = time.perf_counter()
        clients = [
            Client(
                server,
                target,
                connections,
                max_tokens=options.max_tokens,
                timeout_s=options.timeout_s,
                zero=zero,
                redactor=redactor,
            )
            for server, target in looks
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
    """Show a bar on the terminal, and write a line per request to the file."""
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


def _record(
    options: ServeOptions, plan: Plan, loaded: _Loaded, measured: Measured, redactor: Redactor
) -> dict[str, Any]:
    """Return the record: conditions and numbers."""
    return origin(None, ("vico-eval", "httpx", "transformers"), written=redactor) | {
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


def _cell_record(measured: Measured, cell: LoadCell) -> dict[str, Any]:
    speedup = measured.speedup(cell)
    bounds = measured.bounds.get((cell.setting.text_tokens or 0, cell.setting.compression or 0), {})
    return measured.cells[cell].as_record() | {
        "speedup": None if speedup is None else speedup.as_record(),
        "versus_first": measured.versus_first(cell).as_record(),
        "bounds": bounds,
    }


def _write_table(measured: Measured, name: str, out: Path) -> Grid:
    """Write `table4` (for text) or `images` as CSV, LaTeX and Markdown."""
    if name == "table4":
        speedups = table4_speedups(measured)
        grid, numbers = table4_grid(speedups, TABLE4_NOTES), table4_csv(speedups)
    else:
        grid, numbers = images_grid(measured), images_csv(measured)
    texts = {"csv": numbers, "tex": grid_to_latex(grid, f"tab:throughput-{name}"), "md": grid_to_markdown(grid)}
    for kind, text in texts.items():
        (out / f"{name}.{kind}").write_text(text, encoding="utf-8")
    return grid


def _close(console: Console, stop: Stop, cells: dict[LoadCell, CellSummary], out: Path) -> None:
    """Print failures and the files' folder, and exit with the right status."""
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
