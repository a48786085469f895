"""Measure the prefill time that methods save before or inside the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import prefill, prefill_table
from vico_eval.bench.prefill_runs import Settings
from vico_eval.bench.random_visual import is_whole
from vico_eval.bench.records import DTYPES, SIZES
from vico_eval.bench.script import Device, Dtype, Name, Out, Threads, check_choice, finish, run_script, use_threads

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "prefill"


def run(
    size: Annotated[str, typer.Option(help=f"Shape of the decoder: {', '.join(SIZES)}.")] = "0.6b",
    methods: Annotated[str, typer.Option(help="Methods to measure, separated by commas.")] = ",".join(prefill.SYSTEMS),
    rounds: Annotated[int, typer.Option(min=1, help="Number of measurements per method.")] = 4,
    visual_tokens: Annotated[int, typer.Option(help="Visual tokens: a multiple of 256, or 16, 64, 144, 196.")] = 3328,
    text_tokens: Annotated[int, typer.Option(min=2, help="Text tokens, half of them after the image.")] = 40,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    attention: Annotated[str, typer.Option(help="Attention kernel: sdpa, flash_attention_2 or eager.")] = "sdpa",
    threads: Threads = None,
    name: Name = None,
    out: Out = RESULTS,
) -> None:
    """Measure the prefill speed-up of methods that select visual tokens or drop them between layers.

    Runs one prompt through a random Qwen3, without a method and with each method in turns. The record, and a table in
    results/measured/prefill, have speed-ups with their bounds by operations, what methods and encoder scores cost, peak
    memory, and break-even points. On two CPU cores small takes 5 minutes and 0.6b half an hour; 8b needs a GPU.

    \b
    Examples:
      python benchmarks/prefill.py --size small --methods fastv,random_tokens
      python benchmarks/prefill.py --size 8b --device cuda --dtype bfloat16
    """
    check_choice("--size", size, SIZES)
    check_choice("--dtype", dtype, DTYPES)
    for title in methods.split(","):
        check_choice("--methods", title, prefill.SYSTEMS)
    if not is_whole(visual_tokens):
        raise typer.BadParameter(f"got {visual_tokens} visual tokens; expected a multiple of 256, or 16, 64, 144, 196.")
    use_threads(threads)
    settings = Settings(
        size=size, visual_tokens=visual_tokens, text_tokens=text_tokens, device=device, dtype=dtype, attention=attention
    )
    record = prefill.measure(settings, rounds, methods.split(","))
    finish(record, out, name or f"{size}-{device}-{dtype}", prefill_table.readme, prefill_table.summary(record))


if __name__ == "__main__":
    run_script(run)
