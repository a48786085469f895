"""`vico-eval papers`: the papers' printed numbers as tables, and an audit of their consistency."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

from vico_eval.commands.output import message_console, print_json, results_console
from vico_eval.errors import OutputError, ReportError
from vico_eval.report.papers.audit import EXCEPTIONS, Audit, Finding, KnownException, audit_published
from vico_eval.report.papers.grid import published_grid, tidy_csv, write_published
from vico_eval.report.papers.layout import PAPERS, layouts, published_dir
from vico_eval.report.papers.printed import read_table
from vico_eval.report.papers.prose import Reading, ReadStatement
from vico_eval.report.staging import staged
from vico_eval.report.tables.grid import grid_to_terminal


def print_papers(*, paper: str | None, number: int | None, out: Path, figure: bool = False) -> None:
    """Write the papers' tables and print them.

    Args:
        paper: `vico`, `internvl-x`, `tops` or `avtp`; None for all.
        number: the table's number; None for all.
        out: folder for the files, with a subfolder per paper; created if missing.
        figure: also draw ViCO's Figure 1(b), whichever tables are written.

    Raises:
        ConfigError: the paper or table doesn't exist.
        ReportError: the numbers under `results/published` are malformed.
        OutputError: `out` can't be written; its files are then unchanged.
    """
    tables = [read_table(published_dir(), layout) for layout in layouts(paper, number)]
    try:
        with staged(out) as files:
            written = [path for table in tables for path in write_published(table, files.place)]
            if figure:
                written += _write_bubbles(files.place)
            files.move_in()
    except OSError as error:
        raise OutputError(f"Can't write to {out}: {error}. Pass another folder as --out.") from error
    results = results_console()
    for table in tables:
        results.print(grid_to_terminal(published_grid(table), width=results.width))
        results.print()
    messages = message_console()
    messages.print("Written:")
    for folder in dict.fromkeys(path.parent for path in written):
        names = [path.name for path in written if path.parent == folder]
        messages.print(f"  {out / folder.relative_to(files.place)}: {', '.join(names)}", soft_wrap=True)


def print_numbers(*, paper: str | None, number: int | None) -> None:
    """Print the numbers of the papers' tables as JSON, one object each with the columns of their tidy CSV.

    Raises:
        ConfigError: the paper or table doesn't exist.
        ReportError: the numbers under `results/published` are malformed.
    """
    tables = [read_table(published_dir(), layout) for layout in layouts(paper, number)]
    lines = [line for table in tables for line in csv.DictReader(tidy_csv(table).splitlines())]
    print_json(
        [
            {
                **line,
                "value": float(line["value"]),
                "recomputed": float(line["recomputed"]) if line["recomputed"] else None,
            }
            for line in lines
        ]
    )


def _write_bubbles(out: Path) -> tuple[Path, ...]:
    # Imported here, because matplotlib takes half a second to load.
    from vico_eval.report.figures.files import write_figure
    from vico_eval.report.papers.figure1b import SCORES, THROUGHPUT, bubbles, draw_bubbles

    (scores,), (throughput,) = layouts("vico", SCORES), layouts("vico", THROUGHPUT)
    found = bubbles(read_table(published_dir(), scores), read_table(published_dir(), throughput))
    folder = out / scores.paper
    folder.mkdir(exist_ok=True)
    return write_figure(draw_bubbles(found), folder, "figure1b")


def print_audit(*, as_json: bool = False) -> None:
    """Print where the papers' numbers are inconsistent.

    Args:
        as_json: print the findings as a JSON list.

    Raises:
        ReportError: the findings are not exactly the known exceptions.
    """
    folder = published_dir()
    found = audit_published(folder)
    if as_json:
        print_json(
            [
                {**asdict(finding), "difference": finding.difference, "known": None if known is None else known.reason}
                for finding, known in found.findings
            ]
        )
    else:
        _print_findings(found)
    message_console().print(
        f"Recomputed {found.num_averages} averages ({found.without_scores} more have no scores in their paper), "
        f"compared {found.num_shared} numbers that several tables print, and read {len(found.statements)} statements "
        f"of the text. {len(found.findings)} do not agree.",
        soft_wrap=True,
    )
    problems = [f"New disagreement: {finding.what} ({PAPERS[finding.paper]})." for finding in found.unknown]
    problems += [
        f"Known exception that was not found with these values: {entry.what} ({entry.paper})."
        for entry in found.missing
    ]
    if problems:
        advice = f"{folder / EXCEPTIONS} lists the known exceptions. Compare the numbers with the paper, or correct it."
        raise ReportError("\n".join([*problems, advice]))


def _print_findings(found: Audit) -> None:
    results = results_console()
    for finding, known in found.findings:
        results.print(_finding_text(finding, known), soft_wrap=True)
    for paper, read in found.statements:
        if read.fitting:
            results.print(_statement_text(paper, read), soft_wrap=True)


def _finding_text(finding: Finding, known: KnownException | None) -> str:
    values = ", ".join(f"{name} {value!r}" for name, value in finding.values.items())
    return (
        f"{PAPERS[finding.paper]}, {finding.what}\n"
        f"  {values}, difference {finding.difference:+.6f}\n"
        f"  {finding.definition}\n"
        f"  {f'known: {known.reason}' if known else 'NOT KNOWN'}"
    )


def _statement_text(paper: str, read: ReadStatement) -> str:
    """Return a statement's text, with the values of numbers that the tables print twice."""
    lines = [f"{PAPERS[paper]}, text, “{read.statement.says}”", f"  {read.definition}"]
    lines += [f"  fits {_reading_text(reading)}" for reading in read.fitting]
    lines += [f"  not {_reading_text(reading)}" for reading in read.readings if reading not in read.fitting]
    return "\n".join(lines)


def _reading_text(reading: Reading) -> str:
    chosen = "; ".join(f"{what} {value!r}" for what, value in reading.chosen.items())
    return f"{chosen or 'the tables'}: {reading.made:.4f}"
