"""What the scripts of `benchmarks/` share: options, checks of them, and how a measurement ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vico_eval.bench.records import Readme, write_record

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Of the CPU. Default: PyTorch's own choice.")]
Name = Annotated[str | None, typer.Option(help="Of the record. Default: size, device and dtype.")]
Out = Annotated[Path, typer.Option(help="Folder of the record and the table.", show_default=False)]


def check_choice(option: str, value: str, known: Collection[str]) -> None:
    """Raises typer's BadParameter if an option's value is none of the known ones."""
    if value not in known:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}.", param_hint=option)


def picture_size(option: str, value: str) -> tuple[int, int]:
    """Width and height in px of an option's value; raises typer's BadParameter if it is no size."""
    sides = value.split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise typer.BadParameter(f"{value!r} is no size such as 800x600.", param_hint=option)
    return int(sides[0]), int(sides[1])


def use_threads(number: int | None) -> None:
    """Let PyTorch compute on so many threads of the CPU; None leaves its own choice."""
    if number is not None:
        import torch  # only here: a script that measures how long a start takes must not wait for it

        torch.set_num_threads(number)


def finish(record: Mapping[str, Any], out: Path, name: str, readme: Readme, lines: Iterable[str]) -> None:
    """Write a record and its README (`write_record`), and print `lines` and where both are."""
    file = write_record(record, out, name, readme)
    for line in lines:
        typer.echo(line)
    typer.echo(f"Wrote {file.name} and README.md in {file.parent}.", err=True)


def run_script(command: Callable[..., None]) -> None:
    """A benchmark as a program, its help as written: typer.run would show rich's, wrapped."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    app()
