"""Write agreements to the terminal and to agreement.csv, agreement.md and agreement.json."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group

from vico_eval.errors import OutputError
from vico_eval.plain_text import one_line
from vico_eval.report.agreement.compare import Agreement, Comparison
from vico_eval.report.agreement.partings import Parting
from vico_eval.report.provenance import relative_place
from vico_eval.report.staging import staged
from vico_eval.report.tables.csv_text import frame_to_csv
from vico_eval.report.tables.grid import (
    DASH,
    Column,
    Grid,
    GridCell,
    Line,
    escape_markdown,
    grid_to_markdown,
    grid_to_terminal,
    markdown_line,
)
from vico_eval.terminal import Words, lines_of

STEM = "agreement"

_UNITS = ("tokens", "words", "characters")

_HEADS = ("Documents", "Same answers", "Differ", "First", "Second", "Difference", "95% interval", "Lost", "Gained")


def to_terminal(comparisons: Sequence[Comparison], *, examples: int, width: int | None = None) -> Group:
    """The table and lists of differences, for a rich console.

    Args:
        comparisons: one or several pairs of runs.
        examples: number of differing answers to show per pair.
        width: the console's width in columns; None for unlimited.
    """
    parts = []
    for title, lines in _sections(comparisons, examples):
        parts += [Words(f"\n{title}", "bold"), *lines_of(lines)]
    return Group(grid_to_terminal(_grid(comparisons), width), *parts)


def to_markdown(comparisons: Sequence[Comparison], *, examples: int) -> str:
    """The table and lists of differences, in Markdown."""
    parts = [grid_to_markdown(_grid(comparisons))]
    for title, lines in _sections(comparisons, examples):
        parts.append(f"\n**{escape_markdown(title)}**\n\n" + "".join(f"- {markdown_line(line)}\n" for line in lines))
    return "".join(parts)


def to_records(comparisons: Sequence[Comparison], out: Path, *, examples: int) -> list[dict[str, Any]]:
    """Return the entries of agreement.json, one per comparison, with paths relative to `out`."""
    return [
        {
            "run": comparison.name,
            "runs": [
                {"folder": relative_place(folder, out), "record": record.model_dump(mode="json")}
                for folder, record in zip(comparison.folders, comparison.records, strict=True)
            ],
            "benchmarks": [_line_record(line) for line in comparison.benchmarks],
            "total": _line_record(comparison.total),
            "different_conditions": [one._asdict() for one in comparison.different_conditions],
            "examples": [
                {"benchmark": benchmark, **parting._asdict()} for benchmark, parting in comparison.examples(examples)
            ],
            "notes": list(comparison.notes),
        }
        for comparison in comparisons
    ]


def write_agreement(comparisons: Sequence[Comparison], out: Path, *, examples: int) -> tuple[Path, ...]:
    """Write agreement.csv, agreement.md and agreement.json to `out`, which is created if missing.

    Raises:
        OutputError: the files can't be written; the folder is then unchanged.
    """
    records = to_records(comparisons, out, examples=examples)
    texts = {
        f"{STEM}.csv": frame_to_csv(_frame(comparisons)),
        f"{STEM}.md": to_markdown(comparisons, examples=examples),
        f"{STEM}.json": json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    try:
        with staged(out) as files:
            for name, text in texts.items():
                # An answer may contain a lone surrogate, which can't be encoded.
                (files.place / name).write_bytes(text.encode("utf-8", errors="replace"))
            files.move_in()
    except OSError as error:
        raise OutputError(f"Nothing can be written to {out}: {error}. Choose another folder.") from error
    return tuple(out / name for name in texts)


def _grid(comparisons: Sequence[Comparison]) -> Grid:
    has_names = any(comparison.name for comparison in comparisons)
    lines = []
    for comparison in comparisons:
        for place, agreement in enumerate(comparison.lines):
            names = [GridCell(text=comparison.name, is_repeated=place > 0)] if has_names else []
            lines.append(
                Line(
                    titles=(*names, GridCell(text=agreement.benchmark)),
                    cells=tuple(GridCell(text=text) for text in _texts(agreement)),
                    rule_after=agreement is comparison.lines[-1] and comparison is not comparisons[-1],
                )
            )
    return Grid(
        caption="Agreement of two runs" if len(comparisons) == 1 else f"Agreement of {len(comparisons)} pairs of runs",
        heads=(*(["Run"] if has_names else []), "Benchmark"),
        columns=tuple(Column(title=title) for title in (*_HEADS, "Same accounts", "Diverge after")),
        lines=tuple(lines),
        notes=(
            "First and Second are the runs' scores. Difference is Second minus First in points, on the documents that "
            "both runs have. Its interval is a bootstrap over documents, in which documents that share an image or are "
            "scored together stay together. It allows for unobserved changes, so it has a width even if the runs agree "
            "on all documents. Lost and Gained count documents with a lower or a higher score in the second run. "
            "Answers are compared as the model gave them, ignoring leading and trailing white space. Diverge after is "
            "the median length of the common prefix of answers that differ.",
        ),
    )


def _texts(agreement: Agreement) -> list[str]:
    counts, scores = agreement.counts, agreement.scores
    low, high = scores.interval.low, scores.interval.high
    return [
        f"{counts.compared:,}",
        _share(agreement.same_percent),
        f"{counts.compared - counts.same_answers:,}",
        _number(scores.first),
        _number(scores.second),
        _signed(scores.interval.difference),
        DASH if math.isnan(low) else f"{_signed(low)} to {_signed(high)}",
        _count(scores.lost),
        _count(scores.gained),
        f"{counts.same_accounts:,} of {counts.with_accounts:,}" if counts.with_accounts else DASH,
        _parting(agreement),
    ]


def _parting(agreement: Agreement) -> str:
    """The median common prefix, in tokens, or in words without a tokenizer."""
    for unit in _UNITS:
        if not math.isnan(found := agreement.first_difference(unit)):
            return f"{found:g} {unit}"
    return DASH


def _sections(comparisons: Sequence[Comparison], examples: int) -> list[tuple[str, list[str]]]:
    """The lists below the table, with their titles."""
    sections = []
    for comparison in comparisons:
        of = f" of {comparison.name}" if comparison.name else ""
        first, second = comparison.folders
        sections.append((f"Runs{of}", [f"First: {first}", f"Second: {second}", *_remarks(comparison)]))
        conditions = [f"{one.name}: {one.first} | {one.second}" for one in comparison.different_conditions]
        sections.append((f"Conditions that differ{of}", conditions or ["None."]))
        shown = [_example(benchmark, parting) for benchmark, parting in comparison.examples(examples)]
        if shown:
            sections.append((f"Answers that differ{of}", shown))
    return sections


def _remarks(comparison: Comparison) -> list[str]:
    remarks = []
    first, second = comparison.folders
    for line in comparison.benchmarks:
        counts = line.counts
        for number, where in ((counts.only_first, first), (counts.only_second, second)):
            if number:
                remarks.append(f"{line.benchmark}: {number:,} documents are only in {where} and are not compared.")
        for number, where in ((counts.failed_first, first), (counts.failed_second, second)):
            if number:
                remarks.append(f"{line.benchmark}: {number:,} documents have no answer in {where}.")
        if unknown := counts.compared - counts.with_accounts:
            remarks.append(f"{line.benchmark}: {unknown:,} documents lack token accounts in one of the runs.")
    if fields := comparison.total.different_counts:
        named = ", ".join(f"{name} in {number:,}" for name, number in fields.items())
        remarks.append(f"Token accounts differ in {named} documents.")
    if comparison.total.scores.left_out:
        remarks.append(f"Benchmarks without a score difference: {comparison.total.scores.left_out}.")
    return remarks + list(comparison.notes)


def _example(benchmark: str, parting: Parting) -> str:
    at = f"token {parting.tokens}" if parting.tokens is not None else f"character {parting.characters}"
    first, second = one_line(parting.first), one_line(parting.second)
    return f"{benchmark}, {parting.document}, after {at}: {first!r} | {second!r}"


def _frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One line per pair and benchmark, and one for each pair's total."""
    lines = [
        {
            "run": comparison.name,
            "benchmark": line.benchmark,
            **line.counts._asdict(),
            "same_percent": line.same_percent,
            **_scores(line),
            **{f"first_difference_{unit}": line.first_difference(unit) for unit in _UNITS},
            "left_out": line.scores.left_out,
        }
        for comparison in comparisons
        for line in (*comparison.benchmarks, comparison.total)
    ]
    return pd.DataFrame(lines)


def _scores(line: Agreement) -> dict[str, float]:
    scores = line.scores
    own = {"score_first": scores.first, "score_second": scores.second}
    return {**own, **scores.interval._asdict(), "lost": scores.lost, "gained": scores.gained}


def _line_record(line: Agreement) -> dict[str, Any]:
    numbers = {
        "same_percent": line.same_percent,
        **_scores(line),
        **{f"first_difference_{unit}": line.first_difference(unit) for unit in _UNITS},
    }
    return {
        "benchmark": line.benchmark,
        **line.counts._asdict(),
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "different_counts": dict(line.different_counts),
        "left_out": line.scores.left_out,
    }


def _share(value: float) -> str:
    """A percentage that is never rounded to 0% or 100%."""
    if math.isnan(value):
        return DASH
    return f"{value:.1f}%" if value in (0, 100) else f"{min(max(value, 0.1), 99.9):.1f}%"


def _number(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.1f}"


def _count(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:,.0f}"


def _signed(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:+.1f}".replace("-", "−")
