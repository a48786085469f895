"""Measure the throughput of transformers and vLLM on answers of different lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.bench.measurements import engines
from vico_eval.bench.records import DTYPES, SIZES
from vico_eval.bench.script import Device, Dtype, Name, Out, Threads, check_choice, finish, run_script, use_threads

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "engines"


def run(
    size: Annotated[str, typer.Option(help=f"Shape of the decoder: {', '.join(SIZES)}.")] = "0.6b",
    documents: Annotated[int, typer.Option(min=1, help="Number of questions, each about a different image.")] = 48,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of transformers' loop.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=1024, help="Maximum number of tokens per answer.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Number of vLLM runs, each between two runs of the loop.")] = 1,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    threads: Threads = None,
    name: Name = None,
    out: Out = RESULTS,
) -> None:
    """Measure documents per second and the useful share of decode steps, with transformers and with vLLM.

    Needs vLLM in the same environment: run it with the Python of .venv-vllm (make setup-vllm). Writes a record and a
    table to results/measured/engines. On two CPU cores small takes two or three minutes; 8b needs a GPU.

    \b
    Examples:
      python benchmarks/engines.py --size small
      python benchmarks/engines.py --size 8b --device cuda --dtype bfloat16 --documents 512 --batch-size 64
    """
    check_choice("--size", size, SIZES)
    check_choice("--dtype", dtype, DTYPES)
    use_threads(threads)
    settings = engines.Settings(
        size=size,
        documents=documents,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        device=device,
        dtype=dtype,
    )
    record = engines.measure(settings, rounds)
    finish(record, out, name or f"{size}-{device}-{dtype}", engines.readme, engines.summary(record))


if __name__ == "__main__":
    run_script(run)
