"""ViCO's Table 4, printed and measured: how much sooner first tokens come with fewer visual tokens.

Whoever measures (`vico-eval throughput serve` and `local --table4`) hands in its numbers, with the paper's and the
bounds before them: the tidy CSV has a line for each, the grid lays the same numbers out as the paper does.
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
"""Percent of the visual tokens that are removed; none comes first."""

VISUAL_TOKENS = 2560
"""Of the paper's 10 tiles: numbers of a checkpoint with others are not to be compared with it."""

Prompt = tuple[int, int]
"""Text tokens and compression."""

PROMPTS: tuple[Prompt, ...] = tuple((text, share) for text in TEXT_TOKENS for share in COMPRESSIONS)
"""In the table's order."""

Quantity = Literal["llm_only", "end_to_end"]
TITLES: dict[Quantity, str] = {"llm_only": "LLM only", "end_to_end": "End-to-end"}

UNSOUND_NOTE = f"{UNSOUND} stopped early, or more than 1% of the requests failed: not to be relied on."
RATIO_NOTE = "Measured: geometric mean over rounds, in brackets its 95% interval (Student's t over their logarithms)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Speedup:
    """One number of the table."""

    source: Literal["paper", "bound", "measured"]
    system: str
    """What was measured: a model or a server; the paper's model."""

    prompt: Prompt
    quantity: Quantity
    ratio: Ratio
    against: str = ""
    """Another system, with the same prompt. Empty: the same system, with the prompt at 0%."""

    is_sound: bool = True
    """Complete, and nearly without failures."""

    @property
    def line(self) -> tuple[str, str, str]:
        """Which line of a block it stands in."""
        return self.source, self.system, self.against

    @property
    def title(self) -> str:
        """Of this line."""
        if self.source == "bound":
            return "bound by operations"
        if self.source == "paper":
            return f"{self.system} (paper)"
        return f"{self.system} against {self.against}" if self.against else self.system


def paper_speedups() -> list[Speedup]:
    """The printed ones, model by model in the paper's order; all are of the language model only.

    Raises:
        ReportError: the file is malformed, or has another prompt.
    """
    path = published_csv(published_dir(), "vico", 4)
    prompts = {
        (f"10 patches + {text} text tokens", f"token compression {share}%"): (text, share) for text, share in PROMPTS
    }
    printed = []
    for number in read_numbers(path):
        prompt = prompts.get((number.variant, number.setting))
        if prompt is None:
            raise ReportError(f"{path} has {number.variant}, {number.setting}, which is no prompt of Table 4.")
        ratio = _plain(float(number.value))
        printed.append(Speedup(source="paper", system=number.model, prompt=prompt, quantity="llm_only", ratio=ratio))
    return printed


def bound_speedups(bounds: Mapping[Prompt, Mapping[Quantity, float | None]]) -> list[Speedup]:
    """What operations allow; without what is not known (None)."""
    return [
        Speedup(source="bound", system="operations", prompt=prompt, quantity=quantity, ratio=_plain(value))
        for prompt, values in bounds.items()
        for quantity, value in values.items()
        if value is not None
    ]


def table4_csv(speedups: Iterable[Speedup]) -> str:
    """One line a number, unrounded, for pandas.

    Columns: `source` (`paper`, `bound` or `measured`); `system` (the paper's model, `operations`, or what was
    measured); `against` (another system at the same prompt; empty: the same system at 0%); `text_tokens`;
    `compression` (percent); `quantity` (`llm_only` or `end_to_end`); `value`; `low` and `high` (95% interval) and
    `rounds`, of measured numbers; `is_sound` (False: stopped early, or too many failures). What could not be
    measured is empty; what nobody set out to measure has no line.
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
    """As the paper lays it out, a block a length of text; lines in the order in which the numbers come.

    Args:
        speedups: the numbers; a cell without one is a dash.
        notes: of what was measured, beneath those that explain the lines.
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
    notes = [f"Compression: share of the visual tokens that is removed. {RATIO_NOTE}"]
    sources = {one.source for one in speedups}
    if "paper" in sources:
        notes.append("(paper): as printed, of the language model only, in a serving engine with 32 requests at once.")
    if "bound" in sources:
        notes.append(
            "Bound: the ratio of operations (vico_eval/bench/flops.py), end-to-end with the vision encoder's on 10 "
            "tiles; shorter sequences may use caches better, so that a measured speed-up can be above it."
        )
    if any(one.against for one in speedups):
        notes.append("Against another server: first-token throughput with the same prompt.")
    if not all(one.is_sound for one in speedups):
        notes.append(UNSOUND_NOTE)
    return notes


def _text(one: Speedup | None) -> str:
    return DASH if one is None else one.ratio.text(is_sound=one.is_sound)


def _plain(value: float) -> Ratio:
    """A number without an interval."""
    return Ratio(value=value, low=math.nan, high=math.nan, num_rounds=0)
