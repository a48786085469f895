"""How much faster methods in the decoder prefill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import prefill
from vico_eval.bench.records import DTYPES, SIZES
from vico_eval.bench.script import Device, Dtype, Out, Threads, check_choice, finish, run_script, use_threads

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "prefill"


def run(
    size: Annotated[str, typer.Option(help=f"Shape of the decoder: {', '.join(SIZES)}.")] = "0.6b",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each method is measured.")] = 7,
    visual_tokens: Annotated[int, typer.Option(min=1, help="Of the prompt; a tile has 256.")] = 2560,
    text_tokens: Annotated[int, typer.Option(min=2, help="Of the prompt, half of them behind the image.")] = 40,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    attention: Annotated[str, typer.Option(help="sdpa, flash_attention_2 or eager.")] = "sdpa",
    threads: Threads = None,
    name: Annotated[str | None, typer.Option(help="Of the record. Default: size, device and dtype.")] = None,
    out: Out = RESULTS,
) -> None:
    """Measure how much faster methods in the decoder prefill, beside the bound that their operations give.

    Builds a random Qwen3, prefills one prompt plainly and through each method in turns, and writes a record and a table
    to results/measured/prefill. On two CPU cores small takes a minute, 0.6b half an hour; 8b wants a GPU.

    \b
    Examples:
      python benchmarks/prefill.py --size small
      python benchmarks/prefill.py --size 8b --device cuda --dtype bfloat16
    """
    check_choice("--size", size, SIZES)
    check_choice("--dtype", dtype, DTYPES)
    use_threads(threads)
    settings = prefill.Settings(
        size=size,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        device=device,
        dtype=dtype,
        attention=attention,
    )
    record = prefill.measure(settings, rounds)
    finish(record, out, name or f"{size}-{device}-{dtype}", prefill.readme, prefill.summary(record))


if __name__ == "__main__":
    run_script(run)
