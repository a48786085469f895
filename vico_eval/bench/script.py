"""Shared code of the scripts in `benchmarks/`: options, their validation, and the final output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vico_eval.bench.records import Readme, write_record

Device = Annotated[str, typer.Option(help="Device: cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str, typer.Option(help="Data type: float32, bfloat16 or float16.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Number of CPU threads. Default: PyTorch's choice.")]
Name = Annotated[str | None, typer.Option(help="Name of the record. Default: size, device and dtype.")]
Out = Annotated[Path, typer.Option(help="Folder for the record and the table.", show_default=False)]


def check_choice(option: str, value: str, known: Collection[str]) -> None:
    """Raise typer's BadParameter if an option's value is unknown."""
    if value not in known:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}.", param_hint=option)


def picture_size(option: str, value: str) -> tuple[int, int]:
    """Parse an option's value as width and height in px; raises typer's BadParameter."""
    sides = value.split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise typer.BadParameter(f"{value!r} is not a size such as 800x600.", param_hint=option)
    return int(sides[0]), int(sides[1])


def use_threads(number: int | None) -> None:
    """Set the number of PyTorch's CPU threads; None leaves its default."""
    if number is not None:
        import torch  # imported late, because scripts that measure start-up time must not load it

        torch.set_num_threads(number)


def finish(record: Mapping[str, Any], out: Path, name: str, readme: Readme, lines: Iterable[str]) -> None:
    """Write a record and its README (`write_record`), and print `lines` and the paths."""
    file = write_record(record, out, name, readme)
    for line in lines:
        typer.echo(line)
    typer.echo(f"Wrote {file.name} and README.md in {file.parent}.", err=True)


def run_script(command: Callable[..., None]) -> None:
    """Run a benchmark as a program with plain help; typer.run would format and wrap the help with rich."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    app()
