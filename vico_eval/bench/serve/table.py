"""Table 4 from a load: speed-ups beside the paper's, and all that was measured.

LLM-only speed-ups come from text prompts, end-to-end ones from images: a run has one of them, and its numbers stand in
columns of their own.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vico_eval.bench.flops import prefill_flops
from vico_eval.bench.serve.runner import Cell
from vico_eval.bench.serve.summary import CellSummary, Ratio, ratio
from vico_eval.bench.serve.workload import TABLE_4, Setting
from vico_eval.report.grid import DASH, Column, Grid, Line
from vico_eval.report.grid import Cell as GridCell
from vico_eval.report.printed_table4 import COMPRESSIONS, TEXT_TOKENS, printed_table4

UNSOUND = "*"

_Row = tuple[str, list[str]]
"""Second title and cells of a line."""


@dataclass(frozen=True, slots=True)
class Published:
    """Table 4 as printed."""

    speedups: Mapping[tuple[str, Setting], float]
    models: tuple[str, ...]


def read_published() -> Published:
    """The paper's Table 4.

    Raises:
        ReportError: the file is malformed.
    """
    printed = printed_table4()
    speedups = {
        (model, Setting(compression=share, text_tokens=text)): float(value)
        for model, values in printed.items()
        for (text, share), value in values.items()
    }
    return Published(speedups, tuple(printed))


def flop_bounds(text_config: Any) -> dict[Setting, float]:
    """Speed-up that the decoder's operations allow at each setting.

    Raises:
        ConfigError: a decoder with experts.
    """
    layers = text_config.num_hidden_layers
    flops = {one: prefill_flops(text_config, [one.prompt_tokens or 0] * layers).total for one in TABLE_4}
    return {one: flops[_uncompressed(one)] / flops[one] for one in TABLE_4}


@dataclass(frozen=True)
class Measured:
    """What a load measured, and what stands beside it."""

    cells: Mapping[Cell, CellSummary]
    servers: tuple[str, ...]
    """The first is the one that the others are compared with."""

    bounds: Mapping[Setting, float]
    """Empty where the decoder's size is not known."""

    def settings(self) -> tuple[Setting, ...]:
        """In the table's order."""
        return tuple(dict.fromkeys(cell.setting for cell in self.cells))

    def speedup(self, server: str, setting: Setting) -> Ratio | None:
        """Against the same server without compression; None for images."""
        if setting.compression is None:
            return None
        return self._ratio(Cell(server, setting), Cell(server, _uncompressed(setting)))

    def versus_first(self, server: str, setting: Setting) -> Ratio:
        """Against the first server at the same setting."""
        return self._ratio(Cell(server, setting), Cell(self.servers[0], setting))

    def is_sound(self, *cells: Cell) -> bool:
        """Whether all of them were complete and nearly without failures."""
        return all(self.cells[cell].is_sound for cell in cells)

    def _ratio(self, own: Cell, baseline: Cell) -> Ratio:
        return ratio(self.cells[own], self.cells[baseline])


def to_csv(measured: Measured, published: Published) -> str:
    """One line a server and setting, numbers unrounded; blank where there is none."""
    stream = io.StringIO()
    lines = [_csv_line(measured, published, server, one) for server in measured.servers for one in measured.settings()]
    writer = csv.DictWriter(stream, lines[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _csv_line(measured: Measured, published: Published, server: str, setting: Setting) -> dict[str, Any]:
    versus, none = (
        measured.versus_first(server, setting),
        Ratio(value=math.nan, low=math.nan, high=math.nan, num_rounds=0),
    )
    is_text = setting.compression is not None
    line: dict[str, Any] = {"server": server} | setting.as_record()
    line |= _interval("llm_only", measured.speedup(server, setting) or none)
    line["llm_only_bound"] = measured.bounds.get(setting)
    line |= _interval("llm_only_versus_first", versus if is_text else none)
    line |= _interval("end_to_end_versus_first", none if is_text else versus)
    line |= {f"paper_{model}": published.speedups.get((model, setting)) for model in published.models}
    return line | {"is_sound": measured.cells[Cell(server, setting)].is_sound}


def _interval(name: str, value: Ratio) -> dict[str, Any]:
    record = value.as_record()
    return {name: record["value"], f"{name}_low": record["low"], f"{name}_high": record["high"]}


def table_4(measured: Measured, published: Published) -> Grid:
    """As the paper lays it out: the paper's lines, the measured ones beneath."""
    columns = [Column(title=f"{compression}%", group="LLM only") for compression in COMPRESSIONS]
    blocks = [(f"10 tiles + {text} text", list(_text_rows(measured, published, text))) for text in TEXT_TOKENS]
    if Setting() in measured.settings():
        blocks.append((Setting().title, list(_image_rows(measured))))
    return Grid(
        caption="First-token throughput, times that without compression (LLM only) or of the first server (end to end)",
        heads=("Prompt", ""),
        columns=(*columns, Column(title="images", group="End to end")),
        lines=tuple(line for prompt, rows in blocks for line in _block(prompt, rows)),
        notes=_notes(measured),
    )


def _text_rows(measured: Measured, published: Published, text_tokens: int | None) -> Iterator[_Row]:
    settings = [setting for setting in TABLE_4 if setting.text_tokens == text_tokens]
    for model in published.models:
        yield f"{model} (paper)", [*(f"{published.speedups[model, one]:.2f}" for one in settings), DASH]
    if measured.settings() != TABLE_4:
        return
    if measured.bounds:
        yield "bound by operations", [*(f"{measured.bounds[one]:.2f}" for one in settings), DASH]
    for server in measured.servers:
        base = Cell(server, settings[0])
        soundness = [measured.is_sound(Cell(server, one), base) for one in settings]
        ratios = [measured.speedup(server, one) for one in settings]
        yield server, [*map(_ratio_text, ratios, soundness), DASH]
    first = measured.servers[0]
    for server in measured.servers[1:]:
        soundness = [measured.is_sound(Cell(server, one), Cell(first, one)) for one in settings]
        ratios = [measured.versus_first(server, one) for one in settings]
        yield f"{server} against {first}", [*map(_ratio_text, ratios, soundness), DASH]


def _image_rows(measured: Measured) -> Iterator[_Row]:
    for server in measured.servers:
        is_sound = measured.is_sound(Cell(server, Setting()), Cell(measured.servers[0], Setting()))
        yield server, [DASH] * len(COMPRESSIONS) + [_ratio_text(measured.versus_first(server, Setting()), is_sound)]


def measurements(measured: Measured) -> Grid:
    """Throughput, times and failures of every cell."""
    lines = []
    for server in measured.servers:
        rows = []
        for setting in measured.settings():
            one = measured.cells[Cell(server, setting)]
            counts = [str(one.num_ok), str(one.num_requests - one.num_ok), str(one.output_tokens)]
            speeds = [f"{one.requests_per_s:.3g}", f"{one.prompt_tokens_per_s:.4g}"]
            times = [_times_text(values) for values in (one.first_token_ms, one.latency_ms, one.inter_token_ms)]
            rows.append((setting.title, [*counts, *speeds, *times]))
        lines += _block(server, rows)
    titles = ["ok", "failed", "output tokens", "first tokens/s", "prompt tokens/s"]
    titles += ["first token, ms", "answer, ms", "between tokens, ms"]
    return Grid(
        caption="Measured",
        heads=("Server", "Prompt"),
        columns=tuple(Column(title=title) for title in titles),
        lines=tuple(lines),
        notes=("Times: 50th / 90th / 99th percentile of the requests that did not fail.",),
    )


def _notes(measured: Measured) -> tuple[str, ...]:
    notes = ["In brackets: 95% intervals, Student's t over rounds."]
    if not measured.is_sound(*measured.cells):
        notes.append(f"{UNSOUND} stopped early, or more than 1% of the requests failed: not to be relied on.")
    return tuple(notes)


def _ratio_text(value: Ratio | None, is_sound: bool) -> str:
    if value is None or value.value != value.value:
        return DASH
    interval = "" if value.low != value.low or value.low == value.high else f" [{value.low:.2f}, {value.high:.2f}]"
    return f"{value.value:.2f}{interval}{'' if is_sound else UNSOUND}"


def _times_text(values: Mapping[str, float]) -> str:
    return " / ".join(f"{value:.4g}" for value in values.values()) or DASH


def _block(title: str, rows: Sequence[_Row]) -> list[Line]:
    """Lines that share their first title."""
    return [
        Line(
            titles=(GridCell(text=title, is_repeated=place > 0), GridCell(text=second)),
            cells=tuple(GridCell(text=text) for text in texts),
            rule_after=place == len(rows) - 1,
        )
        for place, (second, texts) in enumerate(rows)
    ]


def _uncompressed(setting: Setting) -> Setting:
    return Setting(compression=0, text_tokens=setting.text_tokens)
