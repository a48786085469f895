"""`vico-eval throughput`: how fast it is, next to what arithmetic allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

throughput_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure speed beside its bound.")

DEFAULT_METHODS = "vanilla,vico,fastv"


@throughput_app.command("local")
def throughput_local(
    checkpoint: Annotated[
        str | None, typer.Option(help="A folder, a hub id or a built-in one. Default: vico-tiny.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Instead of a checkpoint: random weights of shape small, 0.6b or 8b.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Separated by commas; the first is what others are compared with. Default: " + DEFAULT_METHODS + ".",
        ),
    ] = None,
    method_args: Annotated[
        str, typer.Option(help="Of the methods, as in keep_ratio=0.3,ratio=0.5; each goes to all that know it.")
    ] = "",
    table4: Annotated[bool, typer.Option("--table4", help="Measure ViCO's Table 4 instead of methods.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests answered together; Table 4 has one.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: a GPU where there is one.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16. Default: bfloat16, on a CPU float32."),
    ] = None,
    attention: Annotated[str, typer.Option(help="Kernel: sdpa, flash_attention_2, eager, ...")] = "sdpa",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU. Default: PyTorch's own choice.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that everything is measured.")] = 7,
    minutes: Annotated[float, typer.Option(min=0, help="No further round is begun that would take longer.")] = 10,
    out: Annotated[Path, typer.Option(help="Folder of record and tables.")] = Path("runs/throughput-local"),
    name: Annotated[str | None, typer.Option(help="Of the record. Default: model, device and dtype.")] = None,
) -> None:
    """Measure the engine stage by stage, or Table 4.

    Tiling, vision encoder, router, connectors, method, prefill and decode; rates, first token, GPU memory, operations.
    Speed-ups stand beside what operations allow, for the language model alone and end-to-end. Methods take turns in
    every round. A record, CSV, LaTeX and a README go to --out.

    \b
    Examples:
      vico-eval throughput local --methods vanilla,vico,fastv,vico+fastv --batch-size 4
      vico-eval throughput local --table4 --shape 8b --device cuda --dtype bfloat16
    """
    if table4 and (methods is not None or method_args or batch_size != 1):
        raise typer.BadParameter("takes no --methods, --method-args or --batch-size.", param_hint="--table4")
    if shape is not None and checkpoint is not None:
        raise typer.BadParameter("takes the place of --checkpoint; give one of them.", param_hint="--shape")
    from vico_eval.commands.throughput_local import LocalOptions, run_local

    run_local(
        LocalOptions(
            checkpoint=checkpoint or "vico-tiny",
            shape=shape,
            methods=[one.strip() for one in (methods or DEFAULT_METHODS).split(",") if one.strip()],
            method_args=method_args,
            table4=table4,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            attention=attention,
            threads=threads,
            rounds=rounds,
            minutes=minutes,
            out=out,
            name=name,
        )
    )
