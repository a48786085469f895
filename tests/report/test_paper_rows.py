"""A paper's rows beneath measured ones. Snapshots are files that `write_report` wrote, read through once."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from vico_eval.errors import ConfigError
from vico_eval.report import write_report
from vico_eval.report.papers.paper_rows import find_model, with_published
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.grid import DASH
from vico_eval.report.tables.table import Row, Table
from vico_eval.report.tables.writers import to_markdown, to_terminal

from .conftest import account, sample, write_run
from .test_writers import latex_row

SNAPSHOTS = Path(__file__).parent / "data" / "beside"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def runs(place):
    """Right answers of four documents: Vanilla 4 (DocVQA) and 2 (ChartQA), ViCO 3 and 2, pooling 1 and 1."""

    def write(system, title, right, compressed):
        lines = {}
        for task, metric, number in zip(("docvqa_val", "chartqa"), ("anls", "relaxed_overall"), right, strict=True):
            counts = [{"account": account(4, compressed)}]
            lines[task] = [sample(doc_id, float(doc_id < number), metric=metric, counts=counts) for doc_id in range(4)]
        metrics = {"docvqa_val": {"anls,none": right[0] / 4}, "chartqa": {"relaxed_overall,none": right[1] / 4}}
        return None, write_run(place / "runs" / system, lines, metrics=metrics, system=system, title=title)

    return [
        write("vanilla", "Vanilla", (4, 2), 0),
        write("pool", "Average pooling", (1, 1), 2),
        write("vico", "ViCO", (3, 2), 2),
    ]


def make(runs, out, **options):
    return write_report(runs, table="vico-3", out=out, benchmarks=["DocVQA", "ChartQA"], **options)


@pytest.fixture(scope="module")
def alone(runs, place):
    return make(runs, place / "alone", html=place / "alone-page")


@pytest.fixture(scope="module")
def beside(runs, place):
    return make(runs, place / "beside", published=True, html=place / "beside-page")


def test_the_papers_row_stands_beneath_the_measured_one_with_its_average_over_these_columns(beside):
    table = beside.table
    rows = {(row.title, row.kind): row for row in table.published}
    vico = rows["ViCO", "score"]
    assert (vico.values["DocVQA"], vico.values["ChartQA"]) == (90.8, 86.7)
    # Of these two columns; of all eight it is 99.6. Vanilla has 91.3 and 86.5.
    assert vico.values[AVERAGE] == pytest.approx(100 * (90.8 + 86.7) / (91.3 + 86.5))
    assert vico.difference == pytest.approx((75 + 50) / 2 - (90.8 + 86.7) / 2)
    assert rows["ViCO", "ratio"].values == pytest.approx({"DocVQA": 60, "ChartQA": 47, AVERAGE: 53.5})
    assert all(map(math.isnan, rows["Average pooling", "score"].values.values()))  # the paper has no such row
    assert ("Average pooling", "ratio") not in rows
    note = table.notes[-1]
    assert "ViCO, table 3, InternVL3.5-8B" in note
    assert "checkpoints, prompts and scorers may differ" in note


def test_published_numbers_take_no_part_in_what_is_measured(alone, beside):
    assert beside.table.rows == alone.table.rows
    for name in ("uncertainty", "loyalty"):
        assert getattr(beside, name).read_bytes() == getattr(alone, name).read_bytes()
    pictures = [path for path in alone.figures if path.suffix == ".png"]
    assert pictures
    assert all(path.read_bytes() == (beside.csv.parent / path.name).read_bytes() for path in pictures)
    latex = beside.latex.read_text()
    assert latex_row(latex, "ViCO &")[:2] == [r"\textbf{75.0}", r"\textbf{50.0}"]  # the paper's are higher
    assert latex_row(latex, r"\quad\textit{ViCO (paper)}")[:2] == [r"\textit{90.8}", r"\textit{86.7}"]
    measured = pd.read_csv(beside.csv).query("source == 'measured'").drop(columns="source")
    pd.testing.assert_frame_equal(measured, pd.read_csv(alone.csv), check_dtype=False)


def test_every_form_marks_them(beside):
    assert r"| *ViCO (paper)* | *90.8* | *86.7* | *99.8%* | *−26.2* |  |" in to_markdown(beside.table)
    assert r"| *Average pooling (paper)* | – | – | – | – |  |" in to_markdown(beside.table)
    assert "compressed tiles (paper)" in to_markdown(beside.table)
    assert to_terminal(beside.table) is not None
    lines = beside.latex.read_text().splitlines()
    # The rule behind the baseline stands behind the paper's baseline.
    assert lines[lines.index(next(line for line in lines if "Vanilla (paper)" in line)) + 1].strip() == r"\midrule"


@pytest.mark.parametrize("name", ["table3.csv", "table3.tex"])
def test_files_are_as_they_were(beside, name):
    assert (beside.csv.parent / name).read_text(encoding="utf-8") == (SNAPSHOTS / name).read_text(encoding="utf-8")


def test_an_average_of_all_of_a_papers_columns_is_the_one_it_prints(place):
    layout = find_model("vico-3", None).table.layout
    columns = layout.average.benchmarks
    titles = {"vanilla": "Vanilla", "fastv": "FastV", "vico": "ViCO"}
    systems = {title: system for system, title in titles.items()}
    table = Table(
        caption="Scores",
        columns=columns,
        digits={},
        rows=tuple(
            Row(title=title, kind="score", values=dict.fromkeys((*columns, AVERAGE), 50.0), competes=False)
            for title in systems
        ),
        baseline="Vanilla",
        notes=(),
        summary=pd.DataFrame(
            {"mean_score": 50.0, "difference": 0.0, "difference_se": 0.0, "token_share": 50.0, "documents": 4},
            index=list(systems),
        ),
    )
    beside = with_published(table, systems, find_model("vico-3", None))
    averages = {row.title: row.values[AVERAGE] for row in beside.published if row.kind == "score"}
    # FastV's cells make 95.956.
    assert averages == {"Vanilla": 100.0, "FastV": 95.9, "ViCO": 99.6}
    assert beside.notes[-1].endswith("† The line's cells give another average: FastV 95.96%.")
    (line,) = [line for line in to_markdown(beside).splitlines() if "FastV (paper)" in line]
    assert "*95.9%†*" in line
    fewer = with_published(replace(table, columns=columns[:-1]), systems, find_model("vico-3", None))
    assert "†" not in to_markdown(fewer)
    assert "Averages are recomputed over the columns shown" in fewer.notes[-1]


def test_a_model_is_chosen_where_the_paper_has_several():
    with pytest.raises(
        ConfigError, match=r"ViCO, table 1 has several models. Give one of InternVL3.5-4B, InternVL3.5-8B"
    ):
        find_model("vico-1", None)
    with pytest.raises(ConfigError, match=r"InternVL3.5-7B.*InternVL3.5-8B"):
        find_model("vico-1", "InternVL3.5-7B")
    paper = find_model("vico-1", "InternVL3.5-8B")
    assert paper.values("vico", "score").keys() >= {"OCRBench", "MMMU"}
    assert 0 < paper.values("vanilla", "score")["MME"] < 100  # printed on 0 to 2800
    assert paper.values("fastv", "score") == {}
    assert find_model("internvl-x-1", "Internlm2-1.8B").values("internvl_x_full", "score")["DocVQA"] > 0


@pytest.mark.parametrize("table", ["tiny", "internvl-x-2"])
def test_a_table_that_no_paper_has_is_an_error(table, runs, tmp_path):
    with pytest.raises(ConfigError, match=rf"No paper prints scores of the table `{table}`.*vico-1, vico-2, vico-3"):
        write_report(runs, table=table, out=tmp_path / "out", published=True)
    assert not (tmp_path / "out").exists()


def test_a_page_has_the_papers_rows_beneath_the_table_and_plots_measured_numbers_only(alone, beside):
    measured, _, published = beside.html.read_text().partition('<tbody class="published">')
    assert "(paper)" not in measured.partition("<tbody>")[2]
    lines = published.partition("</tbody>")[0].split("</tr>")[:-1]
    cells = [re.findall(r"<t[hd][^>]*>([^<]*)(?:<small>([^<]*)</small>)?</t", line) for line in lines]
    heads = re.findall("<th scope=.col.[^>]*><button[^>]*>([^<]*)", measured)
    docvqa, chartqa = heads.index("DocVQA"), heads.index("ChartQA")
    assert (cells[0][0], cells[0][docvqa], cells[0][chartqa]) == (("Vanilla (paper)", ""), ("91.3", ""), ("86.5", ""))
    assert (cells[2][0], cells[2][docvqa], cells[2][chartqa]) == (
        ("ViCO (paper)", ""),
        ("90.8", "60%"),
        ("86.7", "47%"),
    )
    assert cells[1][docvqa] == (DASH, "")  # the paper has no such row
    assert {len(line) for line in cells} == {len(heads)}
    data = [(report.html.parent / "data" / "report.js").read_text() for report in (alone, beside)]
    assert data[0] == data[1]


@pytest.mark.parametrize(("budget", "fastv"), [("256", 95.1), ("128", 80.6)])
def test_a_row_of_all_tokens_stands_beside_every_budget(budget, fastv):
    paper = find_model("tops-2", budget)
    assert paper.title == f"TOPS, table 2, visual tokens {budget}"
    assert paper.values("vanilla", "score")["AI2D"] == 85.1
    assert paper.values("fastv", "score") == {AVERAGE: fastv}
    assert paper.values("sparsevlm", "score") == {}


def test_a_paper_with_several_budgets_asks_which():
    with pytest.raises(ConfigError, match=r"TOPS, table 2 has several rows by visual tokens\. Give one of 256, 128"):
        find_model("tops-2", None)


def test_cards_of_other_papers_methods_have_their_numbers():
    paper = find_model("avtp-2", None)
    assert paper.values("divprune", "score")["MuirBench"] == 43.49
    assert paper.values("visionzip", "score")["NLVR2"] == 48.8


def test_an_average_that_may_not_be_ours_says_so():
    paper = find_model("tops-2", "256")
    columns = paper.table.layout.average.benchmarks
    systems = {"Vanilla": "vanilla", "FastV": "fastv"}
    rows = tuple(
        Row(title=title, kind="score", values=dict.fromkeys((*columns, AVERAGE), 50.0), competes=False)
        for title in systems
    )
    summary = pd.DataFrame({"mean_score": 50.0}, index=list(systems))
    table = Table(
        caption="Scores", columns=columns, digits={}, rows=rows, baseline="Vanilla", summary=summary, notes=()
    )
    beside = with_published(table, systems, paper)
    printed = {row.title: row.values for row in beside.published}
    assert printed["FastV"][AVERAGE] == 95.1
    assert math.isnan(printed["FastV"]["MME"])
    assert printed["Vanilla"]["MME"] == pytest.approx(2369.1 / 28)
    assert "Averages of these lines are relative to the row of 1280 tokens; the paper's averaging" in beside.notes[-1]
