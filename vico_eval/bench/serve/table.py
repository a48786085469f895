"""Tables of a load's results: ViCO's Table 4 for text, the comparison of servers for images, and all measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vico_eval.bench.serve.runner import LoadCell
from vico_eval.bench.serve.summary import CellSummary, ratio
from vico_eval.bench.serve.workload import Setting
from vico_eval.report.speed.ratio import Ratio
from vico_eval.report.speed.table4 import (
    PROMPTS,
    RATIO_NOTE,
    UNSOUND_NOTE,
    Prompt,
    Quantity,
    Speedup,
    bound_speedups,
    paper_speedups,
)
from vico_eval.report.tables.csv_text import csv_text
from vico_eval.report.tables.grid import DASH, Column, Grid, GridCell, Line

TABLE4_NOTES = (
    "LLM only: first-token throughput with texts of the prompts' lengths. End-to-end speed-ups can't be measured with "
    "text, which bypasses the vision encoder.",
)


@dataclass(frozen=True)
class Measured:
    """A load's measurements and the bounds shown beside them."""

    cells: Mapping[LoadCell, CellSummary]
    servers: tuple[str, ...]
    """The first is the baseline of the others."""

    bounds: Mapping[Prompt, Mapping[Quantity, float | None]]
    """Bounds of the speed-ups by operations."""

    def settings(self) -> tuple[Setting, ...]:
        """Return the settings in the table's order."""
        return tuple(dict.fromkeys(cell.setting for cell in self.cells))

    def speedup(self, cell: LoadCell) -> Ratio | None:
        """Return the speed-up over the same server without compression; None for images."""
        return None if cell.setting.compression is None else self.ratio(cell, _uncompressed(cell))

    def versus_first(self, cell: LoadCell) -> Ratio:
        """Return the speed-up over the first server at the same setting."""
        return self.ratio(cell, LoadCell(self.servers[0], cell.setting))

    def ratio(self, own: LoadCell, baseline: LoadCell) -> Ratio:
        """Return the ratio of two cells' first-token throughputs."""
        return ratio(self.cells[own], self.cells[baseline])

    def is_sound(self, *cells: LoadCell) -> bool:
        """Whether all given cells are complete and have few failures."""
        return all(self.cells[cell].is_sound for cell in cells)


def table4_speedups(measured: Measured) -> list[Speedup]:
    """Return Table 4's numbers for a load of texts, after the paper's numbers and the bounds.

    Raises:
        ReportError: the published numbers can't be read.
    """
    speedups = [*paper_speedups(), *bound_speedups(measured.bounds)]
    for server in measured.servers:
        speedups += _server_speedups(measured, server)
    for server in measured.servers[1:]:
        speedups += _server_speedups(measured, server, against=measured.servers[0])
    return speedups


def _server_speedups(measured: Measured, server: str, against: str = "") -> Iterator[Speedup]:
    for text, share in PROMPTS:
        own = LoadCell(server, Setting(compression=share, text_tokens=text))
        baseline = LoadCell(against, own.setting) if against else _uncompressed(own)
        yield Speedup(
            source="measured",
            system=server,
            against=against,
            prompt=(text, share),
            quantity="llm_only",
            ratio=measured.ratio(own, baseline),
            is_sound=measured.is_sound(own, baseline),
        )


def images_grid(measured: Measured) -> Grid:
    """Return the table of a load of images, with every server compared with the first one."""
    first = measured.servers[0]
    lines = []
    for server in measured.servers:
        cell = LoadCell(server, Setting())
        text = measured.versus_first(cell).text(is_sound=measured.is_sound(cell, LoadCell(first, Setting())))
        texts = (f"{measured.cells[cell].requests_per_s:.3g}", text)
        lines.append(Line(titles=(GridCell(text=server),), cells=tuple(GridCell(text=one) for one in texts)))
    return Grid(
        caption="First-token throughput with images, end-to-end.",
        heads=("Server",),
        columns=(Column(title="first tokens/s"), Column(title=f"against {first}")),
        lines=tuple(lines),
        notes=(RATIO_NOTE, *_unsound_note(measured)),
    )


def images_csv(measured: Measured) -> str:
    """Return the same table unrounded as CSV, with one line per server and blanks for missing numbers.

    Columns: `server`; `first_tokens_per_s`; `against` (the first server); `value`, `low` and `high` (ratio to it and
    95% interval); `rounds`; `is_sound` (False if either server stopped early or had too many failures).
    """
    names = ("server", "first_tokens_per_s", "against", "value", "low", "high", "rounds", "is_sound")
    lines: list[Sequence[object]] = [names]
    first = measured.servers[0]
    for server in measured.servers:
        cell = LoadCell(server, Setting())
        is_sound = measured.is_sound(cell, LoadCell(first, Setting()))
        versus = measured.versus_first(cell).as_record().values()
        lines.append((server, measured.cells[cell].requests_per_s, first, *versus, is_sound))
    return csv_text(lines)


def measurements(measured: Measured) -> Grid:
    """Return the table of throughput, times and failures of every cell."""
    lines = []
    for server in measured.servers:
        for place, setting in enumerate(measured.settings()):
            one = measured.cells[LoadCell(server, setting)]
            counts = [str(one.num_ok), str(one.num_requests - one.num_ok), str(one.output_tokens)]
            speeds = [f"{one.requests_per_s:.3g}", f"{one.prompt_tokens_per_s:.4g}"]
            times = [_times_text(values) for values in (one.first_token_ms, one.latency_ms, one.inter_token_ms)]
            lines.append(
                Line(
                    titles=(GridCell(text=server, is_repeated=place > 0), GridCell(text=setting.title)),
                    cells=tuple(GridCell(text=text) for text in (*counts, *speeds, *times)),
                )
            )
    titles = ["ok", "failed", "output tokens", "first tokens/s", "prompt tokens/s"]
    titles += ["first token, ms", "answer, ms", "between tokens, ms"]
    return Grid(
        caption="Measured",
        heads=("Server", "Prompt"),
        columns=tuple(Column(title=title) for title in titles),
        lines=tuple(lines),
        notes=("Times: 50th / 90th / 99th percentile of the successful requests.",),
    )


def _unsound_note(measured: Measured) -> tuple[str, ...]:
    return () if measured.is_sound(*measured.cells) else (UNSOUND_NOTE,)


def _times_text(values: Mapping[str, float]) -> str:
    return " / ".join(f"{value:.4g}" for value in values.values()) or DASH


def _uncompressed(cell: LoadCell) -> LoadCell:
    """Return the same server's cell with all visual tokens and the same number of text tokens."""
    return LoadCell(cell.server, Setting(compression=0, text_tokens=cell.setting.text_tokens))
