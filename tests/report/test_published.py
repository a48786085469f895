"""The papers' tables: read, averaged anew, written. Snapshots are files that `vico-eval papers` wrote."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vico_eval.commands.work.papers import print_papers
from vico_eval.errors import ConfigError, OutputError, ReportError
from vico_eval.report.papers.grid import published_grid, write_published
from vico_eval.report.papers.layout import layouts, published_dir
from vico_eval.report.papers.printed import own_averages, published_csv, read_numbers, read_table, score
from vico_eval.report.stats.retention import AVERAGE

SNAPSHOTS = Path(__file__).parent / "snapshots"


def table(paper, number):
    (layout,) = layouts(paper, number)
    return read_table(published_dir(), layout)


# Printed averages that are not the recomputed ones; `results/published/exceptions.yaml` has the reasons.
OTHERWISE = {
    ("vico", 1, "InternVL3.5-241B-MoE, ViCO"): (99.549, 99.6),
    ("vico", 2, "InternVL3.5-4B, ViCO"): (99.283, 99.2),
    ("vico", 3, "InternVL3.5-8B, FastV"): (95.956, 95.9),
    ("vico", 6, "InternVL3.5-2B, ViCO"): (100.656, 100.6),
    ("internvl-x", 1, "InternVL2, LLM=Internlm2-1.8B; PT/IT=558K/665K"): (45.5525, 45.47),
    ("internvl-x", 1, "InternVL-X, LLM=Internlm2-1.8B; PT/IT=558K/665K"): (48.162, 48.32),
    ("internvl-x", 1, "InternVL-X, LLM=Internlm2.5-7B; PT/IT=558K/665K"): (53.788, 53.85),
    ("internvl-x", 1, "LLaVA-NeXT, LLM=Vicuna-7B; PT/IT=558K/765K"): (61.442, 61.38),
    ("internvl-x", 1, "InternVL-X-HD, LLM=Internlm2-1.8B; PT/IT=558K/770K"): (58.627, 58.64),
}


# Rows of scores and of ratios with a printed average: ViCO's 6, 6, 9, 2, 2 models or methods with their baselines.
@pytest.mark.parametrize(
    ("paper", "number", "expected"),
    [
        ("vico", 1, 18),
        ("vico", 2, 18),
        ("vico", 3, 11),
        ("vico", 5, 6),
        ("vico", 6, 6),
        ("internvl-x", 1, 9),
        ("internvl-x", 3, 7),
    ],
)
def test_averages_recomputed_from_the_printed_cells_are_the_printed_ones(paper, number, expected):
    own = table(paper, number)
    averages = own_averages(own)
    rows = [row for row in own.rows if AVERAGE in row.numbers]
    assert len(rows) == expected
    for row in rows:
        recomputed, printed = averages[row.name, row.kind], float(row.numbers[AVERAGE].value)
        if row.kind == "score" and (paper, number, row.name) in OTHERWISE:
            expected_value, expected_printed = OTHERWISE[paper, number, row.name]
            assert recomputed == pytest.approx(expected_value, abs=6e-4)
            assert printed == expected_printed
        else:
            # Half of ViCO's last digit, which is rounded; one of InternVL-X's, which is cut off in places.
            assert recomputed == pytest.approx(printed, abs=0.0501 if paper == "vico" else 0.0101)


def test_a_row_without_all_scores_has_no_average():
    own = table("internvl-x", 1)
    lines = {tuple(cell.text for cell in line.titles): line.cells[-1].text for line in published_grid(own).lines}
    assert lines["Monkey", "Qwen-7B", "-/1.44M"] == "–"
    assert lines["LLaVA-NeXT", "Vicuna-7B", "558K/765K"] == "61.38†"  # its cells make 61.44


def test_mme_enters_averages_divided_by_28_and_stands_as_printed():
    own = table("vico", 1)
    printed = [row.numbers["MME"] for row in own.rows]
    scores = [number for number in printed if number.kind == "score"]
    assert all(float(number.value) > 2000 and 70 < score(number) < 100 for number in scores)
    ratios = [score(number) for number in printed if number.kind == "ratio"]
    assert ratios == [76, 77, 76, 76, 70, 62]
    place = [column.title for column in published_grid(own).columns].index("MME")
    assert published_grid(own).lines[0].cells[place].text == "2272"


@pytest.mark.parametrize("place", sorted(path.relative_to(SNAPSHOTS).as_posix() for path in SNAPSHOTS.glob("*/*")))
def test_files_are_exactly_those_of_the_snapshots(place, tmp_path):
    paper, number = re.fullmatch(r"(.*)/table(\d).*", place).groups()
    written = write_published(table(paper, int(number)), tmp_path)
    assert tmp_path / place in written
    assert (tmp_path / place).read_text() == (SNAPSHOTS / place).read_text()


def test_there_are_snapshots():
    assert len(list(SNAPSHOTS.glob("*/*"))) == 6


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: layout.title)
def test_every_printed_number_is_in_the_tidy_csv(layout, tmp_path):
    own = read_table(published_dir(), layout)
    tidy = next(path for path in write_published(own, tmp_path) if path.name == f"table{layout.number}.csv")
    with tidy.open(newline="") as file:
        lines = list(csv.DictReader(file))
    printed = read_numbers(published_csv(published_dir(), layout.paper, layout.number))
    assert sorted(line["value"] for line in lines) == sorted(number.value for number in printed)
    assert {line["benchmark"] for line in lines if line["recomputed"]} <= {"Avg"}


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: layout.title)
def test_every_average_is_the_papers_and_marked_exactly_where_its_cells_make_another(layout):
    own = read_table(published_dir(), layout)
    averages = own_averages(own)
    grid = published_grid(own)
    place = next((place for place, one in enumerate(layout.quantities) if one.key == AVERAGE), None)
    if place is None:
        return
    for row, line in zip(own.rows, grid.lines, strict=True):
        text = line.cells[place].text
        if AVERAGE not in row.numbers:
            assert text == "–"
            continue
        printed = row.numbers[AVERAGE].value
        assert re.fullmatch(rf"~?{re.escape(printed)}%?\*?†?", text)
        recomputed = averages.get((row.name, row.kind), float("nan"))
        differs = recomputed == recomputed and f"{recomputed:.{layout.average.digits}f}" != (
            f"{float(printed):.{layout.average.digits}f}"
        )
        assert text.endswith("†") == differs
        assert differs == any(f"{row.name} {recomputed:.{layout.average.digits + 1}f}" in note for note in grid.notes)


def test_thirteen_printed_averages_are_marked():
    # ViCO's tables 1, 2, 3 and 6 one each; InternVL-X's first six, of which one is cut off, and its third three.
    marked = {
        (layout.paper, layout.number): sum(
            cell.text.endswith("†")
            for line in published_grid(read_table(published_dir(), layout)).lines
            for cell in line.cells
        )
        for layout in layouts()
    }
    assert {key: number for key, number in marked.items() if number} == {
        **{("vico", number): 1 for number in (1, 2, 3, 6)},
        ("internvl-x", 1): 6,
        ("internvl-x", 3): 3,
    }


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: layout.title)
def test_a_layout_names_only_what_its_table_has(layout):
    rows = read_table(published_dir(), layout).rows
    assert set(layout.systems) <= {row.name for row in rows}
    assert set(layout.references) <= {row.fields["variant"] for row in rows}
    assert set(layout.group_starts) <= {row.fields.get(layout.group_by, "") for row in rows}
    assert {quantity.key for quantity in layout.quantities} == {key for row in rows for key in row.numbers}


def test_best_is_bold_within_a_group_and_references_never_are():
    grid = published_grid(table("internvl-x", 5))
    bold = [[cell.is_bold for cell in line.cells] for line in grid.lines]
    # Base-ratio has the highest average of each model and the most tokens; fewer tokens or hours are no score.
    assert [line[-1] for line in bold] == [False, False, True] * 2
    assert not any(any(line[:-1]) for line in bold)
    assert [line.rule_after for line in grid.lines] == [False, False, True, False, False, False]


def test_the_hundred_percent_of_a_baseline_is_never_bold_nor_a_value_without_a_rival():
    for number in (1, 2, 5, 6):
        grid = published_grid(table("vico", number))
        bold = [[cell.is_bold for cell in line.cells] for line in grid.lines]
        # Only ViCO is relative to the baseline, so its average is not the best of any; scores have two.
        assert not any(line[-1] for line in bold)
        assert any(any(line) for line in bold)
    assert [line.cells[-1].text for line in published_grid(table("vico", 3)).lines if line.cells[-1].is_bold] == [
        "99.6%"
    ]


def test_columns_stand_in_the_papers_groups_and_ratios_under_the_papers_title():
    groups = {column.title: column.group for column in published_grid(table("internvl-x", 1)).columns}
    assert [groups[name] for name in ("Tokens", "TextVQA", "VizWiz", "SEED-IMG", "Avg.")] == [
        *("", "Text-oriented", "General", "Comprehensive", "")
    ]
    # A group of benchmarks does not change their names where there is no line for it.
    full = [column.full_title for column in published_grid(table("internvl-x", 1)).columns]
    assert "TextVQA" in full
    assert "Video-MME w/ sub." in [column.full_title for column in published_grid(table("vico", 2)).columns]
    titles = {line.titles[-1].text for line in published_grid(table("vico", 1)).lines}
    assert titles == {"baseline", "ViCO", "Ratio of Compressed Patches"}


def test_yes_and_no_are_check_marks():
    lines = [tuple(cell.text for cell in line.titles[-2:]) for line in published_grid(table("internvl-x", 4)).lines]
    assert lines[3:7] == [("", ""), ("✓", ""), ("", "✓"), ("✓", "✓")]


def test_marks_of_the_paper_stand_by_their_numbers():
    cells = {cell.text for line in published_grid(table("internvl-x", 1)).lines for cell in line.cells}
    assert {"~1282", "66.60*", "65.58"} <= cells


def test_all_tables_compile_in_one_document_and_fit_its_page(tmp_path):
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        pytest.skip("pdflatex is not installed")
    texts = []
    for layout in layouts():
        (path,) = [
            path for path in write_published(read_table(published_dir(), layout), tmp_path) if path.suffix == ".tex"
        ]
        texts.append(path.read_text())
    assert all(r"\resizebox" not in text and r"\usepackage{booktabs}." in text for text in texts)
    # The text of a page of the usual conference styles: 6.875 by 9 inches, columns of 3.28.
    page = r"\textwidth=6.875in \columnsep=0.3125in \textheight=9in \oddsidemargin=-0.2in \topmargin=-0.5in "
    begin = rf"\documentclass[twocolumn]{{article}}{page}\usepackage{{booktabs}}\begin{{document}}"
    document = begin + "\n\\clearpage\n".join(texts) + r"\end{document}"
    (tmp_path / "all.tex").write_text(document, encoding="ascii")
    command = [pdflatex, "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_only_known_papers_and_tables_are_made():
    assert [layout.number for layout in layouts("internvl-x")] == [1, 2, 3, 4, 5]
    assert [layout.paper for layout in layouts(number=3)] == ["vico", "internvl-x"]
    with pytest.raises(ConfigError, match=r"unknown paper 'vicco' \(did you mean 'vico'\?\)"):
        layouts("vicco")
    with pytest.raises(ConfigError, match=r"no published table 6; known are 1 \(InternVL-X\), 2"):
        layouts("internvl-x", 6)


def test_the_field_s_tables_hold_what_the_papers_print():
    avtp = {row.name: [number.value for number in row.numbers.values()] for row in table("avtp", 2).rows}
    assert avtp == {
        "InternVL3.5-8B, baseline": ["52.31", "45.51", "47.45", "57.90", "84.83"],
        "InternVL3.5-8B, FastV": ["30.23", "26.75", "43.87", "58.00", "84.17"],
        "InternVL3.5-8B, VisionZip": ["18.46", "15.99", "30.46", "58.00", "48.80"],
        "InternVL3.5-8B, DivPrune": ["43.49", "34.83", "41.03", "45.80", "79.00"],
        "InternVL3.5-8B, V2Drop": ["49.31", "37.32", "45.23", "57.00", "80.72"],
        "InternVL3.5-8B, AVTP": ["50.38", "39.68", "46.77", "57.80", "84.44"],
    }
    baseline, *others = table("tops", 2).rows
    scores = ["85.1", "90.4", "49.4", "2369.1", "85.7", "85.1", "68.3", "97.9"]
    assert [number.value for number in baseline.numbers.values()] == scores
    assert [(row.fields["visual tokens"], row.fields["variant"], row.numbers[AVERAGE].value) for row in others] == [
        *(("256", "FastV", "95.1"), ("256", "DivPrune", "92.5"), ("256", "VisionZip", "90.5")),
        *(("256", "CDPruner", "90.0"), ("256", "TOPS", "96.7")),
        *(("128", "FastV", "80.6"), ("128", "DivPrune", "86.2"), ("128", "VisionZip", "80.5")),
        *(("128", "CDPruner", "83.8"), ("128", "TOPS", "91.9")),
    ]


def test_documents_that_ran_out_of_memory_are_noted_with_their_scores():
    notes = {
        (number.variant, number.benchmark): number.note.partition(" ")[0]
        for number in read_numbers(published_csv(published_dir(), "avtp", 2))
        if "ran out of memory and were scored" in number.note
    }
    columns = ("MuirBench", "MIRB", "BLINK")
    assert notes == {
        **{("FastV", name): count for name, count in zip(columns, ("1070", "397", "81"), strict=True)},
        **{("VisionZip", name): count for name, count in zip(columns, ("1632", "617", "605"), strict=True)},
    }
    assert "1070, 397 and 81 with FastV, 1632, 617 and 605 with VisionZip" in " ".join(
        published_grid(table("avtp", 2)).notes
    )


def test_rows_without_a_budget_stand_apart_from_those_with_one():
    grid = published_grid(table("tops", 2))
    assert [line.titles[0].text for line in grid.lines] == ["1280", *["256"] * 5, *["128"] * 5]
    assert [place for place, line in enumerate(grid.lines) if line.rule_after] == [0, 5]
    bold = {line.titles[1].text for line in grid.lines for cell in line.cells if cell.is_bold}
    assert bold == {"TOPS"}
    assert "the paper's averaging" in grid.notes[0]


def test_a_folder_in_the_way_is_said(tmp_path):
    (tmp_path / "vico").write_text("a file")
    with pytest.raises(OutputError, match="Choose another folder"):
        write_published(table("vico", 4), tmp_path)


def test_all_tables_are_written_or_none(tmp_path):
    (tmp_path / "vico").write_text("a file")
    with pytest.raises(OutputError, match=r"vico is a file, but should be a folder"):
        print_papers(paper=None, number=3, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vico"]


HEADER = "table,model,variant,benchmark,setting,metric,value,unit,note\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("value,unit\n1,points\n", "has the columns value, unit; expected table, model"),
        ("", "has the columns ; expected table, model"),
        (HEADER + "5,1B,ViCO,POPE,,score\n", "line 2 has 6 cells; expected 9"),
        (HEADER + "5,1B,ViCO,POPE,,score,8.6.2,points,\n", "line 2: '8.6.2' is not a number"),
        (HEADER + "5,1B,ViCO,PEPO,,score,86.2,points,\n", "PEPO for 1B, which is not a column"),
        (HEADER + "5,1B,ViCO,POPE,,score,86.2,points,\n" * 2, "POPE of 1B, ViCO twice: 86.2 and 86.2"),
        (HEADER + "5,1B,ViCO,POPE,,score,86.2,points,\n", "no row `baseline` to compare with; the rows are 1B, ViCO"),
    ],
)
def test_malformed_numbers_are_named(text, message, tmp_path):
    path = tmp_path / "vico" / "table5.csv"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ReportError, match=re.escape(message)):
        own_averages(read_table(tmp_path, layouts("vico", 5)[0]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ReportError, match=r"table5.csv can't be read as a published table"):
        read_table(tmp_path, layouts("vico", 5)[0])


def test_published_tables_need_neither_torch_nor_matplotlib():
    program = (
        "import sys\n"
        "import vico_eval.commands.work.papers\n"
        "print(sorted({'torch', 'transformers', 'matplotlib', 'lmms_eval'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
