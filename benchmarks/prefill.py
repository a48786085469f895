"""How much faster methods in the decoder prefill, beside the bound that their operations give.

Random weights of a real shape: time does not depend on what tokens say. Plain runs stand between the others, and a
method's time is compared with the mean of its two neighbours, so that a slower minute of the machine slows both.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm
from transformers import Qwen3ForCausalLM

from vico_eval.bench.flops import prefill_flops
from vico_eval.bench.random_models import decoder_config
from vico_eval.bench.records import (
    DTYPES,
    SIZES,
    beside_neighbours,
    check_choice,
    conditions,
    in_turns,
    records_table,
    run_script,
    write_record,
)
from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.methods import registry

RESULTS = Path(__file__).resolve().parents[1] / "results" / "measured" / "prefill"

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "keep everything": ("fastv", {"keep_ratio": 1.0}),
    "fastv K=2 R=0.5": ("fastv", {"layer": 2, "keep_ratio": 0.5}),
    "sparsevlm topk": ("sparsevlm", {}),
    "sparsevlm topk, target 0.5": ("sparsevlm", {"target_ratio": 0.5}),
}
"""Title -> method and its arguments."""


class Bench:
    """A random model and one prompt, prefilled plainly or through a method."""

    def __init__(self, size: str, visual: int, text: int, device: str, dtype: str, attention: str) -> None:
        torch.manual_seed(0)
        self.config = decoder_config(size, attn_implementation=attention)
        with torch.device(device):
            self.model = Qwen3ForCausalLM._from_config(self.config, dtype=getattr(torch, dtype)).eval()
        if device == "cpu":
            prepare_for_cpu(self.model)  # as `open_engine` does
        self.plain = self.model.model
        self.text = text
        # Half of the text stands before the image, as a system prompt does, and half behind it.
        self.is_visual = torch.zeros(1, visual + text, dtype=torch.bool, device=device)
        self.is_visual[:, text // 2 : text // 2 + visual] = True
        self.embeddings = torch.randn(1, visual + text, self.config.hidden_size).to(self.model.device, self.model.dtype)

    def decoder(self, method: str, arguments: dict[str, Any]) -> CompressingDecoder:
        """The model's own layers with a method's part."""
        return CompressingDecoder(self.plain, registry.build(method, arguments).decoder)

    @torch.inference_mode()
    def prefill(self, decoder: Any) -> tuple[float, Any]:
        """Seconds until the last token's logits are there, and the cache."""
        self.model.model = decoder
        cache = None
        if isinstance(decoder, CompressingDecoder):
            cache = PromptCache(self.config, Prompt(self.is_visual, ("prefill",)))
        self._wait()
        start = time.perf_counter()
        output = self.model(inputs_embeds=self.embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._wait()
        return time.perf_counter() - start, output.past_key_values

    def _wait(self) -> None:
        if self.embeddings.is_cuda:
            torch.cuda.synchronize()


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Times [rounds] of every system and of the plain runs around it, with counts and bounds."""
    decoders = {title: bench.decoder(*system) for title, system in SYSTEMS.items()}
    num_tokens = bench.is_visual.shape[1]
    plain_flops = prefill_flops(bench.config, [num_tokens] * bench.config.num_hidden_layers).total
    bar = tqdm(total=(2 * rounds + 1) * len(decoders) + rounds + 1, unit="prefill")

    def run(title: str, decoder: Any) -> tuple[float, Any]:
        bar.set_description(title)
        timed = bench.prefill(decoder)
        bar.update()
        return timed

    # Once without the clock: kernels are chosen and memory is taken in first runs.
    run("plain", bench.plain)
    visual = {title: run(title, decoder)[1].visual_tokens_per_layer(0) for title, decoder in decoders.items()}
    plain_s, method_s = in_turns(
        lambda: run("plain", bench.plain)[0],
        {title: partial(lambda *pair: run(*pair)[0], title, decoder) for title, decoder in decoders.items()},
        rounds,
    )
    bar.close()
    systems = {}
    for number, (title, seconds) in enumerate(method_s.items()):
        tokens = [count + bench.text for count in visual[title]]
        flops = prefill_flops(bench.config, tokens).total
        compared = beside_neighbours(plain_s, seconds, number)
        systems[title] = {
            "method": SYSTEMS[title][0],
            "arguments": SYSTEMS[title][1],
            "visual_tokens_per_layer": visual[title],
            "mean_visual_share": sum(visual[title]) / len(tokens) / int(bench.is_visual.sum()),
            "tflop": flops / 1e12,
            "bound": plain_flops / flops,
            **compared,
            "share_of_bound": compared["speedup"] * flops / plain_flops,
        }
    return {"plain": {"tflop": plain_flops / 1e12, "seconds": plain_s}, "systems": systems}


def table(records: dict[str, dict[str, Any]]) -> str:
    """The README beside the records."""
    lines = [
        "# Prefill time of methods in the decoder",
        "",
        "Speed-up: time of transformers' plain decoder over time of the method, both through the last token's logits,",
        "one request; median (quartiles) over the rounds of one process, in which plain runs stand between the others.",
        "Bound: the same ratio of operations (`vico_eval/bench/flops.py`), from the tokens that each layer really",
        "worked on; what a method computes to choose tokens is not in it, nor that shorter sequences may use caches",
        "better, so a measured one can be above it. Visual tokens: mean over layers. Weights are random. The records",
        "have every round's times: other work on the machine shows there. Written by `benchmarks/prefill.py`.",
        "",
        "| model | prompt | where | method | visual tokens | median time | speed-up | bound | of the bound |",
        "|:--|:--|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for record in records.values():
        prompt = f"{record['visual_tokens']} visual + {record['text_tokens']} text"
        where = f"{record['processor']}, {record['dtype']}, {record['attention']}"
        start = f"| Qwen3 {record['size']} | {prompt} | {where} |"
        plain = np.median(record["plain"]["seconds"])
        lines.append(f"{start} plain | 100% | {plain:.3g} s | | | |")
        for title, system in record["systems"].items():
            low, high = system["speedup_quartiles"]
            lines.append(
                f"{start} {title} | {system['mean_visual_share']:.1%} | {np.median(system['seconds']):.3g} s "
                f"| {system['speedup']:.3f} ({low:.3f} to {high:.3f}) | {system['bound']:.3f} "
                f"| {system['share_of_bound']:.1%} |"
            )
    lines += ["", *records_table(records)]
    return "\n".join(lines) + "\n"


def run(
    size: Annotated[str, typer.Option(help=f"Shape of the decoder: {', '.join(SIZES)}.")] = "0.6b",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each method is measured.")] = 7,
    visual_tokens: Annotated[int, typer.Option(min=1, help="Of the prompt; a tile has 256.")] = 2560,
    text_tokens: Annotated[int, typer.Option(min=2, help="Of the prompt, half of them behind the image.")] = 40,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    attention: Annotated[str, typer.Option(help="sdpa, flash_attention_2 or eager.")] = "sdpa",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU. Default: PyTorch's own choice.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the record. Default: size, device and dtype.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the record and the table.", show_default=False)] = RESULTS,
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
    if threads is not None:
        torch.set_num_threads(threads)
    bench = Bench(size, visual_tokens, text_tokens, device, dtype, attention)
    record = {
        **conditions("benchmarks/prefill.py", device),
        "size": size,
        "shape": SIZES[size],
        "visual_tokens": visual_tokens,
        "text_tokens": text_tokens,
        "dtype": dtype,
        "attention": attention,
        "rounds": rounds,
        **measure(bench, rounds),
    }
    file = write_record(record, out, name or f"{size}-{device}-{dtype}", table)
    for title, system in record["systems"].items():
        typer.echo(f"{title:<28} {system['speedup']:.3f}  bound {system['bound']:.3f}  {system['share_of_bound']:.1%}")
    typer.echo(f"Wrote {file.name} and README.md in {file.parent}.", err=True)


if __name__ == "__main__":
    run_script(run)
