"""`vico-eval throughput local`: the engine's own speed, and Table 4 on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vico_eval.bench.local import build_methods, measure_methods
from vico_eval.bench.random_models import flash_config, random_flash_model
from vico_eval.bench.records import DTYPES, SIZES, conditions, records_table, write_record
from vico_eval.bench.stages import STAGES
from vico_eval.bench.table4 import measure_table4
from vico_eval.commands.arguments import parse_arguments
from vico_eval.commands.output import check_writable, message_console, results_console
from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.errors import ConfigError, unknown_name
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model, load_tokenizer
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.placement import check_attention, check_device
from vico_eval.methods.registry import Method
from vico_eval.report.speed.stages import csvs, grids
from vico_eval.report.tables.grid import grid_to_markdown, grid_to_terminal
from vico_eval.report.tables.latex_table import grid_to_latex

_NAME = re.compile(r"\w[\w .+-]{0,99}")
"""Name of the record's files, in the folder `--out`."""


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """What to measure, and the model and hardware."""

    checkpoint: str
    """A folder, a hub id or a built-in checkpoint."""

    shape: str | None
    """Random weights of a shape in `SIZES`, instead of a checkpoint."""

    methods: list[str]
    """The methods; the others are compared with the first."""

    method_args: str
    """Hyper-parameters, `k=v,...`; each is passed to all methods that have it."""

    table4: bool
    """Measure ViCO's Table 4 instead of methods."""

    batch_size: int
    device: str | None
    dtype: str | None
    attention: str
    threads: int | None
    rounds: int
    minutes: float
    out: Path
    name: str | None


def run_local(options: LocalOptions) -> None:
    """Measure, print the tables, and write record, CSV, LaTeX and README.

    Raises:
        ConfigError: an option is unknown or invalid, or there is too little memory.
        CheckpointError: the checkpoint is missing, incomplete, or lacks parts that a method needs.
        DocumentError: the engine can't answer.
        OutputError: the folder can't be written.
    """
    _check_name_and_threads(options)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device is None else options.device
    check_device(device)
    is_cpu = torch.device(device).type == "cpu"
    dtype = ("float32" if is_cpu else "bfloat16") if options.dtype is None else options.dtype
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    check_attention(options.attention, is_on_cpu=is_cpu)
    check_writable(options.out)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        model, tokenizer, methods = _load(options, device, dtype)
        if is_cpu:
            prepare_for_cpu(model)
        measured = _measure(options, model, tokenizer, methods)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"{device} ran out of memory: {str(error).splitlines()[0]} Lower --batch-size, or use a smaller --shape or "
            "checkpoint."
        ) from error
    record = {
        **conditions(None, device),
        "model": _model_name(options),
        "dtype": dtype,
        "attention": options.attention,
        "stages": list(STAGES),
        **measured,
    }
    _write(record, options, device)


def _check_name_and_threads(options: LocalOptions) -> None:
    if options.name is not None and not _NAME.fullmatch(options.name):
        raise ConfigError(
            f"--name got {options.name!r}; expected the name of a file without its ending: letters, digits, spaces and "
            "._+- , at most 100. --out names the folder."
        )
    cores = os.cpu_count() or 1
    if options.threads is not None and options.threads > cores:
        raise ConfigError(f"--threads got {options.threads}; expected at most {cores}, the cores of this machine.")


def _load(options: LocalOptions, device: str, dtype: str) -> tuple[VicoInternVL, PreTrainedTokenizerBase, list[Method]]:
    """Load the model, its tokenizer, and the methods, which are checked before weights are read."""
    methods: list[Method] = []
    arguments = parse_arguments(options.method_args, "--method-args")
    if options.shape is not None:
        if options.shape not in SIZES:
            raise unknown_name("shape", options.shape, SIZES)
        if not options.table4:
            methods = build_methods(options.methods, flash_config(options.shape), _model_name(options), arguments)
        message_console().print(f"Making random weights of shape {options.shape} ...", highlight=False)
        return *random_flash_model(options.shape, device=device, dtype=dtype, attention=options.attention), methods
    checkpoint = find_checkpoint(options.checkpoint)
    if not options.table4:
        methods = build_methods(options.methods, checkpoint.config, checkpoint.name, arguments)
    tokenizer = load_tokenizer(checkpoint)
    model = load_model(checkpoint, dtype=dtype, device=device, attn_implementation=options.attention)
    return model, tokenizer, methods


def _measure(
    options: LocalOptions, model: VicoInternVL, tokenizer: PreTrainedTokenizerBase, methods: list[Method]
) -> dict[str, Any]:
    if options.table4:
        measured = measure_table4(model, rounds=options.rounds, minutes=options.minutes)
        return {"rounds": len(measured["encoder_s"]), **measured}
    entries = measure_methods(
        model,
        tokenizer,
        methods,
        batch_size=options.batch_size,
        rounds=options.rounds,
        minutes=options.minutes,
    )
    rounds = len(next(iter(entries.values()))["whole_s"])
    return {"rounds": rounds, "batch_size": options.batch_size, "methods": entries}


def _write(record: dict[str, Any], options: LocalOptions, device: str) -> None:
    kind = "table4" if options.table4 else "methods"
    model = options.shape or Path(options.checkpoint).name
    name = options.name if options.name is not None else f"{kind}-{model}-{device.replace(':', '')}-{record['dtype']}"
    file = write_record(record, options.out, name, _readme)
    console = results_console()
    for suffix, text in csvs(record).items():
        (options.out / f"{name}{suffix}.csv").write_text(text, encoding="utf-8")
    for suffix, grid in grids(record).items():
        console.print(grid_to_terminal(grid, console.width))
        (options.out / f"{name}{suffix}.tex").write_text(grid_to_latex(grid, f"tab:{name}{suffix}"), encoding="utf-8")
    message_console().print(
        f"Wrote {file.name}, its tables (.csv, .tex) and README.md in {file.parent}.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _readme(records: dict[str, dict[str, Any]]) -> str:
    lines = ["# Speed of the engine", "", "Written by `vico-eval throughput local`.", ""]
    for record in records.values():
        lines += [grid_to_markdown(grid) for grid in grids(record).values()]
    lines += records_table(records)
    return "\n".join(lines) + "\n"


def _model_name(options: LocalOptions) -> str:
    return f"random weights of shape {options.shape}" if options.shape else options.checkpoint
