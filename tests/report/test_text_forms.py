"""Text from outside in each form of a table: LaTeX, CSV, Markdown, pictures."""

import csv
import io
import re

import pandas as pd
import pytest

from vico_eval.report.figures.dots import draw_benchmarks
from vico_eval.report.speed.ratio import mean_ratio
from vico_eval.report.speed.table4 import Speedup, table4_csv
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.csv_text import csv_text, frame_to_csv
from vico_eval.report.tables.grid import (
    Column,
    Grid,
    GridCell,
    Line,
    escape_markdown,
    grid_to_csv,
    grid_to_markdown,
)
from vico_eval.report.tables.latex_table import grid_to_latex
from vico_eval.report.tables.latex_text import escape_latex
from vico_eval.report.tables.table import Row, Table

TITLES = (
    *("[1cm] x", "*", "*[2em]", "[", r"\\[1cm]", r"\input{x}", "50% of $x_1$", "a & b # c ~ d ^ e", "{}", "<b>|`\"'"),
    *(
        "Größe façade Ångström ǖ ı ß",
        "α–Σ → ≤ 1 …",
        "行一 🙂 Ж",
        "a--b ---c",
        "''q'' ,, ?‘ !‘",
        "–-",
        "x\n\ty\x1b[31m\u202e",
    ),
)

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}&$%#_^~]|[^\\{}&$%#_^~]", re.DOTALL)
_COMMANDS = frozenset(
    re.findall(
        r"\w+",
        "begin end centering caption label toprule midrule bottomrule par smallskip parbox linewidth footnotesize quad "
        "textit textbf resizebox ifdim width else fi ifdefined Umathchar symbol char textbackslash textasciicircum "
        "textasciitilde textless textgreater textbar ldots dagger sim surd pm times cdot rightarrow leq geq approx mu "
        "circ ss i fontsize selectfont setlength tabcolsep abovecaptionskip belowcaptionskip raggedright rlap alpha "
        "Sigma u c r v H d b",
    )
)


def grid(*titles: str, cell: str = "1.0") -> Grid:
    lines = [Line(titles=(GridCell(text=title),), cells=(GridCell(text=cell),), rule_after=True) for title in titles]
    return Grid(caption=titles[0], heads=(titles[0],), columns=(Column(title="A"),), lines=tuple(lines), notes=titles)


def tokens(text: str) -> list[str]:
    """TeX's, less comments."""
    return _TOKEN.findall(re.sub(r"(?<!\\)%.*", "", text))


@pytest.mark.parametrize("title", TITLES)
def test_no_title_reaches_beyond_its_cell_in_latex(title):
    text = grid_to_latex(grid(title, "Other"), "t")
    assert text.isascii()
    found = tokens(text)
    depth = 0
    for place, token in enumerate(found):
        depth += (token == "{") - (token == "}")
        assert depth >= 0
        if token == "\\\\":
            # The row end and the rule behind it look for an argument behind any white space.
            behind = [one for one in found[place + 1 :] if not one.isspace()]
            behind = behind[behind[0] in (r"\midrule", r"\bottomrule") :]
            assert behind[0] not in ("[", "*")
        if re.fullmatch(r"\\[A-Za-z]+", token):
            assert token[1:] in _COMMANDS
        assert token not in ("#", "_", "~")
        assert token != "^" or "".join(found[place : place + 2]) == "^{"
    assert depth == 0
    # Cells: a head, a title and a number a line, whatever the title has.
    assert found.count("&") == 3
    assert found.count("$") % 2 == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1cm] x", "{[}1cm] x"),
        ("*", "{*}"),
        ("a [1.0, 2.0] b*", "a [1.0, 2.0] b*"),  # only at the start of a cell is it an argument
        ("a--b", "a-{}-b"),
        ("–-", "--{}-"),
        ("it's ''x''", "it's '{}'x'{}'"),
        ('"`', r"{\char34}\`{}"),
        ("é ç ǖ í", r"\'{e} \c{c} \={\"{u}} \'{\i}"),
        ("e\u0301", r"\'{e}"),
        ("中", r"{\ifdefined\Umathchar\symbol{20013}\else U+4E2D\fi}"),
        ("a\tb\r\nc\x00\x9b", "a b c"),
        ("", ""),
    ],
)
def test_latex_by_hand(text, expected):
    assert escape_latex(text) == expected


FORMULAS = ("=cmd", "+1", "-1+2", "@SUM(A1)", "\tx", "\rx", " =1", "＝1", "'=1", "-", "+")


@pytest.mark.parametrize("text", FORMULAS)
def test_text_is_no_formula_in_any_csv_and_can_be_had_back(text):
    frame = pd.DataFrame({"row": [text, "ViCO"], "value": [-1.5, 2.0], "documents": pd.array([1, None], dtype="Int64")})
    one = Speedup(
        source="measured", system=text, prompt=(64, 0), quantity="llm_only", ratio=mean_ratio([]), against=text
    )
    for written, count in (
        (frame_to_csv(frame), 1),
        (csv_text([[text, 1.0]]), 1),
        (grid_to_csv(grid(text)), 2),
        (table4_csv([one]), 2),
    ):
        cells = [cell for line in csv.reader(io.StringIO(written, newline="")) for cell in line]
        assert cells.count(f"'{text}".replace("\r", "\n")) == count
        assert not [cell for cell in cells if cell == text]
    assert frame_to_csv(frame).splitlines()[0] == "row,value,documents"


def test_numbers_below_zero_stay_numbers_in_a_csv():
    frame = pd.DataFrame({"row": ["ViCO"], "value": [-1.5], "mixed": pd.Series([-2.5], dtype=object)})
    assert frame_to_csv(frame) == "row,value,mixed\nViCO,-1.5,-2.5\n"
    for text in ("-1.5", "+0.3", "-12.5%", "-1e-5", "-.5", "-861,601"):
        assert grid_to_csv(grid("ViCO", cell=text)).splitlines()[1] in (f"ViCO,{text}", f'ViCO,"{text}"')
    assert grid_to_csv(grid("ViCO", cell="-1 (low)")).splitlines()[1] == "ViCO,'-1 (low)"


def test_markdown_prints_entities_links_and_lists_as_they_stand():
    assert escape_markdown("&lt; ![x](y) http://a.b www.a.b a/b") == (r"\&lt; !\[x\](y) http\://a.b www\.a.b a/b")
    for note, expected in (
        ("- x", r"\- x"),
        ("+ x", r"\+ x"),
        ("=== x", r"\=== x"),
        ("1. x", r"1\. x"),
        ("12) x", r"12\) x"),
        ("# x", r"\# x"),
        ("> x", r"\> x"),
        ("1.5 x - y", r"1\.5 x - y"),
        ("plain", "plain"),
    ):
        assert grid_to_markdown(grid("T", note)).splitlines()[-1] == f"{expected}  "


def test_every_row_is_named_in_a_picture_as_it_stands():
    titles = ("_private", "$x_1$ and $y$", r"\$ and \alpha", "100% ^_^", "{", "$")
    rows = [
        Row(title=title, kind="score", values={"A_$b$": 50.0, AVERAGE: 50.0}, competes=False)
        for title in ("Vanilla", *titles)
    ]
    summary = pd.DataFrame({"retention": 50.0}, index=["Vanilla", *titles])
    table = Table(
        caption="A $caption$ of $two$",
        columns=("A_$b$",),
        digits={},
        rows=tuple(rows),
        baseline="Vanilla",
        notes=(),
        summary=summary,
    )
    nothing = pd.DataFrame(columns=["row", "benchmark", "low", "high"])
    figure = draw_benchmarks(table, nothing)
    figure.draw_without_rendering()
    named = figure.axes[0].get_yticklabels()
    assert [text.get_text().replace(r"\$", "$") for text in named] == [*titles]
    assert all(not text._preprocess_math(text.get_text())[1] for text in (*figure.texts, *named))
