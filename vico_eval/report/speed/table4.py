"""ViCO's Table 4, printed and measured: speed-up of the first token with fewer visual tokens.

The measuring commands (`vico-eval throughput serve` and `local --table4`) pass in their numbers, preceded by the
paper's and the bounds. The tidy CSV has one line per number; the grid lays them out like the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vico_eval.errors import ReportError
from vico_eval.report.papers.layout import published_dir
from vico_eval.report.papers.printed import published_csv, read_numbers
from vico_eval.report.speed.ratio import UNSOUND, Ratio
from vico_eval.report.tables.csv_text import csv_text
from vico_eval.report.tables.grid import DASH, Column, Grid, GridCell, Line

TEXT_TOKENS = (64, 512)
COMPRESSIONS = (0, 25, 50, 75)
"""Percentage of visual tokens removed; 0 comes first."""

VISUAL_TOKENS = 2560
"""Visual tokens of the paper's 10 tiles. A checkpoint with a different number can't be compared with the paper."""

Prompt = tuple[int, int]
"""Text tokens and compression."""

PROMPTS: tuple[Prompt, ...] = tuple((text, share) for text in TEXT_TOKENS for share in COMPRESSIONS)
"""All prompts, in the table's order."""

Quantity = Literal["llm_only", "end_to_end"]
TITLES: dict[Quantity, str] = {"llm_only": "LLM only", "end_to_end": "End-to-end"}

UNSOUND_NOTE = f"{UNSOUND} Unreliable: stopped early, or more than 1% of the requests failed."
RATIO_NOTE = "Measured values are geometric means over rounds, with 95% intervals (Student's t over their logarithms)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Speedup:
    """One number in the table."""

    source: Literal["paper", "bound", "measured"]
    system: str
    """The measured model or server, or the paper's model."""

    prompt: Prompt
    quantity: Quantity
    ratio: Ratio
    against: str = ""
    """Reference system at the same prompt. Empty for the same system at 0%."""

    is_sound: bool = True
    """The measurement is complete and nearly without failures."""

    @property
    def line(self) -> tuple[str, str, str]:
        """Key of the number's line within a block."""
        return self.source, self.system, self.against

    @property
    def title(self) -> str:
        """Title of the line."""
        if self.source == "bound":
            return "bound by operations"
        if self.source == "paper":
            return f"{self.system} (paper)"
        return f"{self.system} against {self.against}" if self.against else self.system


def paper_speedups() -> list[Speedup]:
    """The paper's numbers, by model in the paper's order; all are for the language model only.

    Raises:
        ReportError: the file is malformed, or has an unknown prompt.
    """
    path = published_csv(published_dir(), "vico", 4)
    prompts = {
        (f"10 patches + {text} text tokens", f"token compression {share}%"): (text, share) for text, share in PROMPTS
    }
    printed = []
    for number in read_numbers(path):
        prompt = prompts.get((number.variant, number.setting))
        if prompt is None:
            raise ReportError(f"{path} has {number.variant}, {number.setting}, which is not a prompt of Table 4.")
        ratio = _plain(float(number.value))
        printed.append(Speedup(source="paper", system=number.model, prompt=prompt, quantity="llm_only", ratio=ratio))
    return printed


def bound_speedups(bounds: Mapping[Prompt, Mapping[Quantity, float | None]]) -> list[Speedup]:
    """Speed-ups bounded by operations; unknown bounds (None) are left out."""
    return [
        Speedup(source="bound", system="operations", prompt=prompt, quantity=quantity, ratio=_plain(value))
        for prompt, values in bounds.items()
        for quantity, value in values.items()
        if value is not None
    ]


def table4_csv(speedups: Iterable[Speedup]) -> str:
    """The numbers as CSV, one per line and unrounded.

    Columns: `source` (`paper`, `bound` or `measured`); `system` (the paper's model, `operations`, or what was
    measured); `against` (another system at the same prompt; empty: the same system at 0%); `text_tokens`; `compression`
    (percent); `quantity` (`llm_only` or `end_to_end`); `value`; `low` and `high` (95% interval) and `rounds`, for
    measured numbers; `is_sound` (False: stopped early, or too many failures). A value that could not be measured is
    empty; combinations that were not requested have no line.
    """
    names = ("source", "system", "against", "text_tokens", "compression", "quantity")
    lines: list[Sequence[object]] = [(*names, "value", "low", "high", "rounds", "is_sound")]
    for one in speedups:
        known = one.ratio.as_record()
        rounds = known["num_rounds"] if one.source == "measured" else None
        values = [known["value"], known["low"], known["high"], rounds]
        lines.append((one.source, one.system, one.against, *one.prompt, one.quantity, *values, one.is_sound))
    return csv_text(lines)


def table4_grid(speedups: Sequence[Speedup], notes: Sequence[str]) -> Grid:
    """The table in the paper's layout, with one block per text length, and lines in the order of the numbers.

    Args:
        speedups: the numbers; missing cells are dashes.
        notes: notes on the measurement, which follow those that explain the lines.
    """
    cells = {(one.line, one.prompt, one.quantity): one for one in speedups}
    lines = []
    for text in TEXT_TOKENS:
        titles = {one.line: one.title for one in speedups if one.prompt[0] == text}
        for place, (line, title) in enumerate(titles.items()):
            own = [cells.get((line, (text, share), quantity)) for quantity in TITLES for share in COMPRESSIONS]
            is_last = place == len(titles) - 1
            lines.append(
                Line(
                    titles=(GridCell(text=f"10 tiles + {text} text", is_repeated=place > 0), GridCell(text=title)),
                    cells=tuple(GridCell(text=_text(one)) for one in own),
                    rule_after=is_last and text != TEXT_TOKENS[-1],
                )
            )
    return Grid(
        caption="Speed-up of the first token with fewer visual tokens, as in ViCO's Table 4.",
        heads=("Prompt", "System"),
        columns=tuple(Column(title=f"{share}%", group=title) for title in TITLES.values() for share in COMPRESSIONS),
        lines=tuple(lines),
        notes=(*_notes(speedups), *notes),
    )


def _notes(speedups: Sequence[Speedup]) -> list[str]:
    notes = [f"Compression is the share of visual tokens removed. {RATIO_NOTE}"]
    sources = {one.source for one in speedups}
    if "paper" in sources:
        notes.append(
            "Lines marked (paper) are as printed, for the language model only, in a serving engine with 32 "
            "concurrent requests."
        )
    if "bound" in sources:
        notes.append(
            "Bound is the ratio of operations (vico_eval/bench/flops.py), end-to-end including the vision encoder on "
            "10 tiles. Shorter sequences may use caches better, so a measured speed-up can exceed it."
        )
    if any(one.against for one in speedups):
        notes.append("Lines against another server compare first-token throughput at the same prompt.")
    if not all(one.is_sound for one in speedups):
        notes.append(UNSOUND_NOTE)
    return notes


def _text(one: Speedup | None) -> str:
    return DASH if one is None else one.ratio.text(is_sound=one.is_sound)


def _plain(value: float) -> Ratio:
    """A ratio without an interval."""
    return Ratio(value=value, low=math.nan, high=math.nan, num_rounds=0)
