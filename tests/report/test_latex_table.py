"""The LaTeX of a grid: which float, how wide, and how it is continued."""

import re

import pytest

from vico_eval.report.tables.grid import Column, Grid, GridCell, Line
from vico_eval.report.tables.latex_table import _FORMS, COLUMN, PAGE, _blocks, _fitting, _text_width, grid_to_latex


def make_grid(*titles, rows=("Vanilla", "ViCO"), cell="88.0", **of_column) -> Grid:
    return Grid(
        caption="Scores",
        heads=("Method",),
        columns=tuple(Column(title=title, **of_column) for title in titles),
        lines=tuple(
            Line(titles=(GridCell(text=row),), cells=tuple(GridCell(text=cell) for _ in titles)) for row in rows
        ),
        notes=("A note.",),
    )


def test_a_narrow_table_takes_a_column_and_a_wide_one_the_page():
    assert r"\begin{table}[t]" in grid_to_latex(make_grid("DocVQA", "Avg."), "t")
    wide = grid_to_latex(make_grid(*(f"DocVQA {number}" for number in range(9))), "t")
    assert r"\begin{table*}[t]" in wide
    assert wide.rstrip().endswith(r"\end{table*}")
    assert r"\resizebox" not in wide


def test_titles_are_broken_only_where_that_saves_the_page():
    few, many = make_grid("TextVQA"), make_grid("TextVQA", "MMBench", "SEED-IMG", "VQAv2", "MMBench V1.1", "POPE")
    assert "Method & TextVQA" in grid_to_latex(few, "t")
    lines = [line.strip() for line in grid_to_latex(many, "t").splitlines()]
    assert r"& Text & MM & SEED- &  & MMBench &  \\" in lines
    assert r"Method & VQA & Bench & IMG & VQAv2 & V1.1 & POPE \\" in lines


def test_what_is_wider_than_the_page_continues_beneath_and_groups_stay_together():
    grid = make_grid(*(f"Benchmark{number:02d}" for number in range(14)))
    form, blocks = _fitting(grid)
    assert form.width == PAGE
    assert [place for block in blocks for place in block] == list(range(14))
    assert len(blocks) == 2
    text = grid_to_latex(grid, "t")
    assert text.count(r"\begin{tabular}") == text.count("Vanilla &") == 2
    (first, _) = blocks
    grouped = Grid(
        caption="Scores",
        heads=grid.heads,
        columns=tuple(
            Column(title=one.title, group="AB"[place >= first.stop - 2]) for place, one in enumerate(grid.columns)
        ),
        lines=grid.lines,
        notes=(),
    )
    assert _blocks(grouped, _FORMS[-1]) == [range(first.stop - 2), range(first.stop - 2, 14)]


def test_marks_hang_and_their_column_has_room_for_them():
    text = grid_to_latex(make_grid(*(f"DocVQA {number}" for number in range(12)), cell="66.6*"), "t")
    assert r"66.6\rlap{{*}}" in text
    assert r"r@{\hspace{6pt}}r" in text


def test_a_line_about_another_spans_all_columns_of_titles():
    above = Line(titles=(GridCell(text="InternVL3.5-8B"), GridCell(text="ViCO")), cells=(GridCell(text="1"),))
    below = Line(
        titles=(GridCell(text="InternVL3.5-8B", is_repeated=True), GridCell(text="Ratio of Compressed Patches")),
        cells=(GridCell(text="2%"),),
        is_italic=True,
    )
    grid = Grid(caption="", heads=("Model", "Variant"), columns=(Column(title="A"),), lines=(above, below), notes=())
    assert r"\multicolumn{2}{@{}l}{\quad\textit{Ratio of Compressed Patches}} & \textit{2\%} \\" in grid_to_latex(
        grid, "t"
    )


def test_rules_never_follow_each_other():
    line = Line(titles=(GridCell(text="A"),), cells=(GridCell(text="1"),), heading="Retain 50%", rule_after=True)
    grid = Grid(caption="", heads=("Method",), columns=(Column(title="A"),), lines=(line, line), notes=())
    text = re.sub(r"\s+", " ", grid_to_latex(grid, "t"))
    assert r"\midrule \midrule" not in text
    assert text.count(r"\multicolumn{2}{c}{\textit{Retain 50\%}}") == 2


# cmr8, by TeX's own \wd of a box at 8 pt.
@pytest.mark.parametrize(
    ("text", "points"),
    [
        *(("0123456789", 42.50), ("InternVL3.5-241B-MoE", 87.45), ("Ratio of Compressed Patches", 108.75)),
        *(("MMBench", 38.35), ("Mobilellama-2.7B", 65.27), ("99.5%", 22.19), ("RealWorldQA", 52.29)),
    ],
)
def test_widths_are_never_too_small_and_little_too_large(text, points):
    assert points - 0.6 <= _text_width(text) <= 1.03 * points
    assert COLUMN < PAGE
