import io
import re
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from vico_eval.errors import ReportError
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.latex_text import escape_latex
from vico_eval.report.tables.layout import _saves_nothing
from vico_eval.report.tables.table import Row, Table
from vico_eval.report.tables.writers import to_latex, to_markdown, to_terminal

NAN = float("nan")


def row(title, *values, kind="score", competes=True) -> Row:
    return Row(title=title, kind=kind, values=dict(zip(("A", "B", AVERAGE), values, strict=True)), competes=competes)


def make_table(*rows, notes=(), summary=None, best=None) -> Table:
    return Table(
        caption="Scores",
        columns=("A", "B"),
        digits={"A": 1, "B": 2},
        rows=(row("Vanilla", 90.0, 80.0, 100.0, competes=False), *rows),
        baseline="Vanilla",
        notes=notes,
        summary=pd.DataFrame() if summary is None else summary,
        best=best or {},
    )


def latex_row(text, title):
    (line,) = [line for line in text.splitlines() if line.strip().startswith(title)]
    return [cell.strip().removesuffix(r" \\") for cell in line.split("&")][1:]


def printed(table, width):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(to_terminal(table, width))
    return stream.getvalue()


def test_each_column_is_rounded_to_its_digits_and_the_average_is_a_percentage():
    assert latex_row(to_latex(make_table(row("ViCO", 88.04, 79.996, 99.64)), "t"), "ViCO") == [
        "88.0",
        "80.00",
        r"99.6\%",
    ]


def test_the_best_of_a_column_are_bold():
    best = {"A": frozenset({"One", "Two"}), AVERAGE: frozenset({"Two"})}
    table = make_table(row("One", 88.04, 1.0, 90.0), row("Two", 87.96, 2.0, 91.0), best=best)
    text = to_latex(table, "t")
    assert latex_row(text, "One") == [r"\textbf{88.0}", "1.00", r"90.0\%"]
    assert latex_row(text, "Two") == [r"\textbf{88.0}", "2.00", r"\textbf{91.0\%}"]
    assert latex_row(text, "Vanilla") == ["90.0", "80.00", r"100.0\%"]
    assert "Bold marks the best row within a budget" in text


def test_a_row_saves_nothing_where_it_is_not_known_to_save_tokens():
    assert _saves_nothing(shares(A=100.0, B=50.0)) == {"A"}
    assert _saves_nothing(shares(A=float("nan"), B=101.0)) == {"A", "B", AVERAGE}


def shares(**values) -> pd.Series:
    """Visual tokens, percent of the baseline's, with their mean."""
    return pd.Series({**values, AVERAGE: sum(values.values()) / len(values)})


def test_ratio_rows_are_italic_and_unknown_numbers_are_dashes():
    table = make_table(row("ViCO", 88.0, NAN, NAN), row("ViCO", 61.6, NAN, 55.04, kind="ratio", competes=False))
    assert latex_row(to_latex(table, "t"), r"\quad\textit{compressed tiles}") == [
        r"\textit{62\%}",
        "--",
        r"\textit{55.0\%}",
    ]
    assert "| ViCO | 88.0 | – | – |" in to_markdown(table)
    assert "| *compressed tiles* | *62%* | – | *55.0%* |" in to_markdown(table)


HOSTILE = "50% of $x_1$ & {\\input{/etc/passwd}} #1 ~^ <b>|*`[red]x[/red]\nend"


def test_latex_prints_any_name_literally():
    assert escape_latex(r"a_b & 50% \cmd{x}") == r"a\_b \& 50\% \textbackslash{}cmd\{x\}"
    text = to_latex(make_table(row(HOSTILE, 1.0, 2.0, 3.0), notes=(HOSTILE,)), HOSTILE)
    body = "\n".join(text.splitlines()[1:])  # the first line is a comment
    assert r"\input" not in body
    assert not re.search(r"(?<!\\)[%#]", body)
    opened = len(re.findall(r"(?<!\\)\{", body))
    assert opened == len(re.findall(r"(?<!\\)\}", body))
    # Every row of the tabular has as many cells as it has columns.
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {3}


def test_latex_has_difference_tokens_and_marks_and_leaves_the_interval_to_be_asked_for():
    table = replace(
        make_table(row("ViCO", 88.0, 79.0, 99.5), summary=summary(-1.26, 0.34)),
        intervals={"ViCO": (98.04, 100.96)},
        significant={"ViCO": frozenset({"B"})},
        best=dict.fromkeys(("A", "B", AVERAGE), frozenset({"ViCO"})),
    )
    text = to_latex(table, "t")
    assert latex_row(text, "ViCO") == [
        *(r"\textbf{88.0}", r"\textbf{79.00}\rlap{{*}}", r"\textbf{99.5\%}", r"$-$1.3 $\pm$ 0.3", r"56.0\%")
    ]
    assert "* marks significant differences from Vanilla, by a paired test corrected" in text
    chosen = to_latex(table, "t", ["B", AVERAGE, "95% interval"])
    assert latex_row(chosen, "ViCO") == [r"\textbf{79.00}\rlap{{*}}", r"\textbf{99.5\%}", r"98.0--101.0\%"]
    assert latex_row(chosen, "Vanilla") == ["80.00", r"100.0\%", r"\\"]  # blank
    with pytest.raises(ReportError, match=r"no column C; it has A, B, Avg\., 95% interval, Difference, Visual tokens"):
        to_latex(table, "t", ["C"])
    assert "differs from Vanilla" not in to_latex(replace(table, significant={}), "t")


def test_an_interval_without_an_upper_end_is_a_bound():
    table = replace(
        make_table(row("ViCO", 88.0, 79.0, 99.5), summary=summary(-1.26, 0.34)),
        intervals={"ViCO": (98.04, float("inf"))},
    )
    assert latex_row(to_latex(table, "t", ["95% interval"]), "ViCO") == [r"$\geq$ 98.0\%"]


def test_latex_has_no_character_outside_ascii():
    # A document class without UTF-8 input would stop at ours: dashes, minus and plus-minus.
    text = to_latex(make_table(row("ViCO", NAN, 2.0, 3.0), notes=("−1 ± 2 – 3",)), "t")
    assert text.isascii()


def test_markdown_prints_any_name_literally_in_one_cell():
    lines = to_markdown(make_table(row(HOSTILE, 1.0, 2.0, 3.0))).splitlines()
    (line,) = [line for line in lines if "50%" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 5
    assert r"\*\`\[red\]x" in line


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_terminal_shows_every_number_at_any_width_and_reads_no_markup(width):
    table = make_table(row("ViCO [red]x[/red]", 88.0, 79.0, 99.5))
    text = printed(table, width)
    assert "[red]x[/red]" in text
    for number in ("90.0", "80.00", "100.0%", "88.0", "79.00", "99.5%"):
        assert number in text
    assert max(map(len, text.splitlines())) <= width


def test_a_wide_table_is_continued_below_on_a_narrow_terminal():
    columns = tuple(f"Benchmark {number}" for number in range(12))
    values = {column: 50.0 + place for place, column in enumerate((*columns, AVERAGE))}
    table = Table(
        caption="Scores",
        columns=columns,
        digits={},
        rows=(Row(title="Vanilla", kind="score", values=values, competes=False),),
        baseline="Vanilla",
        notes=(),
        summary=pd.DataFrame(),
    )
    text = printed(table, 80)
    assert text.count("\n Vanilla") == 3  # 4 or 5 columns of 12 characters beside each title
    assert all(column in text for column in columns)
    assert printed(table, 400).count("\n Vanilla") == 1


def summary(difference, error):
    columns = {"difference": difference, "difference_se": error, "token_share": 56.04, "documents": 1504}
    return pd.DataFrame(
        {**columns, "retention_spread": NAN}, index=["Vanilla", "ViCO"], columns=[*columns, "retention_spread"]
    )


def test_markdown_has_the_difference_with_its_error_and_the_visual_tokens():
    text = to_markdown(make_table(row("ViCO", 88.0, 79.0, 99.5), summary=summary(-1.26, 0.34)))
    assert "| 99.5% | −1.3 ± 0.3 | 56.0% |" in text
    assert "1504 documents per row" in text
    unknown = to_markdown(make_table(row("ViCO", 88.0, 79.0, 99.5), summary=summary(-1.26, NAN)))
    assert "| −1.3 ± – |" in unknown
