import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vico_eval.commands.work.report import print_report
from vico_eval.errors import OutputError, ReportError, UserError
from vico_eval.report import write_report
from vico_eval.report.scores.benchmarks import table_spec
from vico_eval.report.scores.count_run import count_run
from vico_eval.report.stats.side_by_side import measure
from vico_eval.report.stats.uncertainty import Criterion
from vico_eval.report.tables.grid import DASH
from vico_eval.runs.read import read_run

from .conftest import TINY_TASKS, account, sample, write_run, write_tiny_run

LMMS_EVAL_RUN = Path(__file__).parent / "data" / "lmms_eval_0_7_3"

numbers_only = pytest.mark.usefixtures("unsaved_pictures")


def numbers(report) -> dict[tuple[str, str, str], dict[str, str]]:
    with report.csv.open(newline="", encoding="utf-8") as file:
        return {(line["row"], line["benchmark"], line["metric"]): line for line in csv.DictReader(file)}


def value(report, row, benchmark, metric) -> float:
    return float(numbers(report)[row, benchmark, metric]["value"])


def write_runs(folder):
    """Vanilla has 4 of 4 right, ViCO 3 with half of its tiles compressed, all-compress 1."""
    return [
        (None, write_tiny_run(folder, "vico", 3, 2, title="ViCO")),
        ("ViCO (All Compress)", write_tiny_run(folder, "all_compress", 1, 4)),
        (None, write_tiny_run(folder, "vanilla", 4, 0, title="Vanilla")),
    ]


@pytest.fixture
def runs(tmp_path):
    """Runs that a test may change."""
    return write_runs(tmp_path)


@pytest.fixture(scope="module")
def written_runs(tmp_path_factory):
    """Runs that no test changes."""
    return write_runs(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def report(written_runs):
    """Their report, two folders deeper than `runs`; not to be changed."""
    return write_report(written_runs, table="tiny", out=written_runs[0][1].parents[1] / "deep" / "out")


@numbers_only
def test_a_cell_with_documents_that_failed_says_so_and_has_no_score(runs, tmp_path):
    folder = runs[0][1]
    (samples,) = folder.rglob("*_samples_tiny_doc.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines[2] |= {"filtered_resps": "", "token_counts": [None], "exact_match": 0.0}
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    failure = {"task": "tiny_doc", "split": "test", "doc_id": 2, "reason": "<b>no such image</b>"}
    (folder / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    line = next(line for line in report.markdown.read_text().splitlines() if line.startswith("| ViCO |"))
    assert line.split("|")[2:5] == [" 75.0 ", " failed ", " 75.0 "]
    assert line.split("|")[-4] == f" {DASH} "  # no average over the others
    assert r"\<b\>no such image" in report.markdown.read_text()
    assert "failed" in report.latex.read_text()
    (note,) = [note for note in report.table.notes if "could not be answered" in note]
    assert note.startswith("ViCO, Doc: 1 of 4 documents could not be answered (<b>no such image</b>)")
    assert value(report, "ViCO (All Compress)", "Avg.", "relative_retention") == 25.0


@numbers_only
def test_runs_of_one_row_are_of_one_model(tiny_run, tmp_path):
    folders = [(None, tiny_run("vanilla", 4, 0, title="Vanilla"))]
    for seed in (0, 1):
        arguments = {"ratio": 0.5, "seed": seed}
        folders.append(("Random", tiny_run(f"random{seed}", 3, 2, method_args=arguments)))
    with pytest.raises(ReportError, match="has runs of two systems"):
        write_report(folders, table="tiny", out=tmp_path / "out")
    for _, folder in folders[1:]:
        record = json.loads((folder / "record.json").read_text()) | {"system": "random"}
        (folder / "record.json").write_text(json.dumps(record))
    write_report(folders, table="tiny", out=tmp_path / "out")
    record["method_args"] = {"ratio": 0.6, "seed": 1}
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(ReportError, match=r"both given as `Random`, but differ in ratio 0\.5 and 0\.6\. Give"):
        write_report(folders, table="tiny", out=tmp_path / "out")
    first = json.loads((folders[1][1] / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(first))
    with pytest.raises(ReportError, match=r"random0 and .*random1 have the same answers and .* one is a copy"):
        write_report(folders, table="tiny", out=tmp_path / "out")
    (folder / "record.json").write_text(json.dumps(first | {"method_args": {"ratio": 0.5, "seed": 1}}))
    copy = shutil.copytree(folder, tmp_path / "runs" / "copy")
    with pytest.raises(ReportError, match=r"random1 and .*copy have the same answers and .* one is a copy"):
        write_report([*folders, ("Random", copy)], table="tiny", out=tmp_path / "out")


def pictures(*stems):
    """Names of pictures, across a page and for a column."""
    return [f"{stem}{width}.{kind}" for width in ("", "-column") for stem in stems for kind in ("pdf", "png")]


def test_a_report_from_run_folders(report):
    assert [path.name for path in report.paths] == [
        "table3.csv",
        "table3.tex",
        "table3.md",
        "uncertainty.csv",
        "loyalty.csv",
        "endings.csv",
        "strata.csv",
        "strata.md",
        "strata.tex",
        *pictures("retention"),
        *pictures("ratios"),
        *pictures("benchmarks"),
        "provenance.json",
    ]
    assert all(path.stat().st_size > 100 for path in report.paths)
    assert [(row.title, row.kind) for row in report.table.rows] == [
        ("Vanilla", "score"),  # the paper's order, not the order given
        ("ViCO (All Compress)", "score"),  # 100% everywhere says nothing, so no ratio row
        ("ViCO", "score"),
        ("ViCO", "ratio"),
    ]
    assert value(report, "ViCO", "Read", "score") == 75.0
    assert value(report, "ViCO", "Avg.", "relative_retention") == 75.0
    assert value(report, "ViCO", "Avg.", "compressed_tile_ratio") == 50.0
    assert value(report, "ViCO", "Avg.", "visual_token_share") == 62.5  # (2 x 16 + 2 x 4) / (4 x 16)
    # One of four documents is lost in each task: variance 10000 / 4 - ... = 2500, error sqrt(2500 / 4) = 25 a task,
    # and 25 / sqrt(9) for the mean of nine.
    assert value(report, "ViCO", "Read", "difference_standard_error") == pytest.approx(25.0)
    assert value(report, "ViCO", "Avg.", "difference_standard_error") == pytest.approx(25 / 3)


def test_scores_of_a_router_are_drawn_with_its_threshold(tiny_run, tmp_path):
    routed = tiny_run("vico", 3, 2)
    for path in (*routed.rglob("*_samples_*.jsonl"), routed / "answers.rank0.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            own = line["account"] if "account" in line else line["token_counts"][0]["account"]
            own |= {"p_compress": [0.9, 0.1, 0.6, 0.2], "compressed": [0, 2]}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = [(None, tiny_run("vanilla", 4, 0, title="Vanilla", method_args={})), (None, routed)]
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    scores = [path for path in report.figures if path.name.startswith("scores")]
    assert [path.name for path in scores] == pictures("scores")
    assert all(path.stat().st_size > 10_000 for path in scores)
    read = [read_run(path) for _, path in runs]
    columns = table_spec("tiny").benchmarks
    cells = measure([count_run(run.record.title, run, columns) for run in read], columns).cells
    (_, vanilla), (_, vico) = cells[cells["benchmark"] == "Read"].iterrows()
    assert vanilla["scores"] is None
    assert np.isnan(vanilla["threshold"])
    # Four documents of four tiles; two of each are compressed, at the record's 0.5 or above.
    assert (vico["scores"].tiles.sum(), vico["scores"].compressed.sum(), vico["threshold"]) == (16, 8, 0.5)


def test_every_number_leads_to_the_records_of_its_runs(report):
    lines = numbers(report)
    assert lines["ViCO", "Read", "score"]["runs"] == "../../runs/vico"
    assert lines["ViCO", "Read", "difference"]["runs"] == "../../runs/vico;../../runs/vanilla"
    for line in lines.values():
        for record in line["records"].split(";"):
            assert json.loads((report.csv.parent / record).read_text())["version"] == 1
    provenance = json.loads(report.provenance.read_text())
    assert provenance["baseline"] == "Vanilla"
    records = {run["run"]: run["record"] for run in provenance["runs"]}
    assert len(provenance["cells"]) == 27
    for cell in provenance["cells"]:
        assert records[cell["run"]]["harness"] == "lmms-eval"
        assert cell["documents"] == 4
        results = json.loads((report.csv.parent / cell["results"][0]).read_text())
        task = f"tiny_{cell['benchmark'].lower()}"
        assert cell["score"] == 100 * results["results"][task]["exact_match,none"]


@numbers_only
def test_the_csv_keeps_full_precision(tmp_path):
    lines = [sample(doc_id, float(doc_id < 1)) for doc_id in range(3)]
    folder = write_run(tmp_path / "run", dict.fromkeys(TINY_TASKS, tuple(lines)), system="vanilla", title="Vanilla")
    report = write_report([(None, folder)], table="tiny", out=tmp_path / "out")
    assert numbers(report)["Vanilla", "Read", "score"]["value"] == repr(100 * (1 / 3))
    assert "33.3" in report.markdown.read_text()


def test_a_rerun_writes_the_same_bytes(written_runs, report):
    first = [path.read_bytes() for path in report.paths]
    second = [path.read_bytes() for path in write_report(written_runs, table="tiny", out=report.csv.parent).paths]
    assert first == second


@numbers_only
def test_runs_of_one_title_are_one_row_with_mean_and_spread(tiny_run, tmp_path):
    runs = [
        (None, tiny_run("vanilla", 4, 0, title="Vanilla")),
        ("Random", write_seed(tmp_path, "random-1", right=1)),
        ("Random", write_seed(tmp_path, "random-2", right=3)),
    ]
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    assert value(report, "Random", "Avg.", "relative_retention") == 50.0
    # Retentions of 25% and 75%: sample standard deviation 50 / sqrt(2).
    assert value(report, "Random", "Avg.", "relative_retention_spread_over_runs") == pytest.approx(50 / 2**0.5)
    assert numbers(report)["Random", "Read", "score"]["runs"] == "../runs/random-1;../runs/random-2"
    assert "Random: mean of 2 runs." in report.markdown.read_text()


def write_seed(tmp_path, name, right):
    lines = tuple(sample(doc_id, float(doc_id < right), counts=[{"account": account(4, 2)}]) for doc_id in range(4))
    began = f"2026-11-21T11:40:0{right}+00:00"
    folder = tmp_path / "runs" / name
    return write_run(folder, dict.fromkeys(TINY_TASKS, lines), system="random", title="Random", started=began)


@numbers_only
def test_a_missing_benchmark_leaves_the_average_unknown_and_is_said(runs, tmp_path):
    for path in (runs[0][1] / "models__vico-tiny").glob("*_results.json"):
        results = json.loads(path.read_text())
        del results["n-samples"]["tiny_video"]
        path.write_text(json.dumps(results))
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    line = next(line for line in report.markdown.read_text().splitlines() if line.startswith("| ViCO |"))
    assert line.endswith("| – | – | – | – |")  # Video, Avg., difference, tokens
    assert "ViCO: not run on Video, so it has no average." in report.table.notes
    assert value(report, "ViCO (All Compress)", "Avg.", "relative_retention") == 25.0
    chosen = write_report(runs, table="tiny", out=tmp_path / "chosen", benchmarks=["Read", "Doc"])
    assert chosen.table.columns == ("Read", "Doc")
    assert value(chosen, "ViCO", "Avg.", "relative_retention") == 75.0


@numbers_only
def test_a_run_without_a_benchmark_of_the_table_is_a_row_of_dashes(runs, tiny_run, tmp_path):
    other = write_run(tmp_path / "other", {"ocrbench": [sample(0, 1.0)]}, title="Other")
    report = write_report([*runs, (None, other)], table="tiny", out=tmp_path / "out", benchmarks=["Read", "Doc"])
    assert "| Other | – | – | – | – | – |" in report.markdown.read_text()
    assert "Other: not run on Read, Doc, so it has no average." in report.table.notes
    assert value(report, "ViCO", "Avg.", "relative_retention") == 75.0


def test_a_run_of_another_model_is_reported_without_ratios_or_picture(tmp_path):
    run = shutil.copytree(LMMS_EVAL_RUN, tmp_path / "run")
    (run / "record.json").unlink()
    with pytest.raises(ReportError, match="no row of the system `vanilla`"):
        write_report([("Dummy", run)], table="tiny", out=tmp_path)
    report = write_report([("Dummy", run)], table="tiny", out=tmp_path, baseline="Dummy", benchmarks=["Read", "Count"])
    assert report.figures == ()
    assert any(note.startswith("No figure: no row has both") for note in report.table.notes)
    assert "4 of 5 documents answered: Read, Count." in report.table.notes
    assert value(report, "Dummy", "Avg.", "mean_score") == 50.0


@numbers_only
def test_a_row_that_saves_nothing_is_never_the_best(runs, tiny_run, tmp_path):
    # ViCO's weights with nothing compressed score more than ViCO, but save no token.
    runs.append((None, tiny_run("uncompressed", 4, 0, title="ViCO, uncompressed")))
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    lines = report.markdown.read_text().splitlines()
    assert any(line.startswith("| ViCO, uncompressed | 100.0 |") for line in lines)
    assert any(line.startswith("| ViCO | 75.0 |") for line in lines)


@numbers_only
def test_rows_are_compared_with_the_baseline_document_by_document(tmp_path):
    """Sixty documents about twenty pictures in each benchmark; ViCO loses those about the first ten pictures."""

    def write(name, title, right):
        lines = [
            sample(doc_id, float(right(doc_id)), counts=[{"account": account() | {"media": f"picture {doc_id // 3}"}}])
            | {"filtered_resps": "7" if right(doc_id) else "77"}
            for doc_id in range(60)
        ]
        return None, write_run(tmp_path / name, dict.fromkeys(TINY_TASKS, lines), system=name, title=title)

    runs = [write("vanilla", "Vanilla", lambda _: True), write("vico", "ViCO", lambda doc_id: doc_id >= 30)]
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    with report.uncertainty.open(newline="", encoding="utf-8") as file:
        lines = {line["benchmark"]: line for line in csv.DictReader(file)}
    assert set(lines) == {*report.table.columns, "Avg."}
    assert (lines["Read"]["documents"], lines["Read"]["pictures"]) == ("60", "20")
    assert lines["Read"]["retention"] == lines["Avg."]["retention"] == "50.0"
    # Twenty pictures, half of them lost: 100 sqrt(0.5 x 0.5 / 20), times 20/19 because clusters hold three documents;
    # separate documents would have an error smaller by sqrt(3).
    assert float(lines["Read"]["standard_error"]) == pytest.approx(11.8, rel=0.03)
    with report.loyalty.open(newline="", encoding="utf-8") as file:
        lines = {line["benchmark"]: line for line in csv.DictReader(file)}
    assert (lines["Read"]["same_answer"], lines["Read"]["first_difference_characters"]) == ("50.0", "1.0")
    assert (lines["Avg."]["lost"], lines["Avg."]["gained"]) == ("270.0", "0.0")
    text = report.markdown.read_text()
    section = text[text.index("**Compared with Vanilla**") :]
    assert "- ViCO: 50.0% (" in section
    assert r"retains less than 99% (p \< .05); 50% same answers, 270 documents lost, 0 gained." in section
    assert "- Vanilla" not in section
    assert "independent" not in section


def test_a_run_says_which_documents_have_no_picture_and_where_it_does_not_know(tmp_path):
    accounts = [account() | {"media": "1f2e"}, account(tiles=0), account()]
    lines = [sample(doc_id, 1.0, counts=[{"account": one}]) for doc_id, one in enumerate(accounts)]
    run = read_run(write_run(tmp_path / "run", {"tiny_read": [*lines, sample(3, 1.0, counts=[None])]}))
    columns = table_spec("tiny").benchmarks
    measured = measure([count_run("Vanilla", run, columns)], columns)
    assert list(measured.documents["Read"].runs[0].media) == ["1f2e", "", None, None]


@numbers_only
def test_a_baseline_of_zero_makes_no_percentage_and_is_said(tiny_run, tmp_path):
    runs = [(None, tiny_run("vanilla", 0, 0, title="Vanilla")), (None, tiny_run("vico", 1, 2, title="ViCO"))]
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    assert "Vanilla has a mean score of 0, so there are no relative scores." in report.table.notes
    assert numbers(report)["ViCO", "Avg.", "relative_retention"]["value"] == ""
    assert value(report, "ViCO", "Avg.", "difference") == 25.0


@numbers_only
def test_large_runs_make_the_same_report_in_several_processes(written_runs, report, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("vico_eval.report.read_runs._WORTH_PROCESSES", 0)
    together = write_report(written_runs, table="tiny", out=report.csv.parents[1] / "together")
    for path, other in zip(report.paths, together.paths, strict=True):
        assert path.name == other.name
        assert path in report.figures or path.read_bytes() == other.read_bytes()
    for _, folder in runs[:2]:
        (folder / "record.json").unlink()
    with pytest.raises(ReportError, match=r"(?s)runs/vico has no record.*runs/all_compress has no record"):
        write_report(runs, table="tiny", out=tmp_path / "out")


def test_all_runs_that_do_not_count_are_named(runs, tmp_path):
    for _, folder in runs[:2]:
        next((folder / "models__vico-tiny").glob("*_results.json")).unlink()
    with pytest.raises(ReportError) as caught:
        write_report(runs, table="tiny", out=tmp_path / "out")
    assert str(runs[0][1]) in str(caught.value)
    assert str(runs[1][1]) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_rows_must_have_answered_the_same_documents(runs, tiny_run, tmp_path):
    lines = tuple(sample(doc_id, 1.0) for doc_id in range(2))
    short = write_run(tmp_path / "short", dict.fromkeys(TINY_TASKS, lines), original=4, system="random", title="Random")
    with pytest.raises(ReportError, match=r"tiny_read: .*different documents \(4: 0 to 3 and 2: 0 to 1\)"):
        write_report([*runs, (None, short)], table="tiny", out=tmp_path / "out")


@numbers_only
def test_what_differs_between_runs_is_said(runs, tiny_run, tmp_path):
    runs.append((None, tiny_run("random", 2, 2, title="Random", dtype="float32")))
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    assert "Random was run with another dtype than ViCO." in report.table.notes


@numbers_only
def test_what_was_left_out_or_added_of_the_harness_is_said_where_it_differs(runs, tiny_run, tmp_path):
    left_out = {"tiny_read": ["\n\n"], "another_task": ["x"]}
    said = {"left_out_until": left_out, "system_instruction": "Be brief."}
    runs.append((None, tiny_run("random", 2, 2, title="Random", **said)))
    notes = write_report(runs, table="tiny", out=tmp_path / "out").table.notes
    assert "Random was run with another system_instruction than ViCO." in notes
    (note,) = [note for note in notes if "stop strings" in note]
    assert note.startswith("tiny_read: ")
    assert note.endswith(r"ignored different stop strings of the task (none and '\n\n').")


@numbers_only
def test_other_data_of_a_task_are_noted(runs, tiny_run, tmp_path):
    data = (
        {"tiny_read": "revision a", "tiny_doc": "datasets 1"},
        {"tiny_read": "revision b", "tiny_doc": "datasets 2"},
    )
    read = [
        (None, tiny_run(f"random-{number}", 2, 2, title=f"Random {number}", data_sets=data[number]))
        for number in (0, 1)
    ]
    notes = write_report([read[0], *runs, read[1]], table="tiny", out=tmp_path / "out", baseline="Random 0").table.notes
    (note,) = [note for note in notes if "different data" in note]
    assert note.startswith("tiny_read: ")
    assert note.endswith("used different data for the task (revision a and revision b).")


def test_hostile_titles_reach_every_file_as_they_are(runs, tmp_path):
    title = '=1+1 & \\input{x} | <b> $5, "q"; \n \x1b[31mtwo\udcff\u202e'
    report = write_report([(title, runs[0][1]), *runs[1:]], table="tiny", out=tmp_path / "out")
    # A spreadsheet takes it for text; what no terminal should obey and no encoding has is gone.
    assert ('\'=1+1 & \\input{x} | <b> $5, "q"; [31mtwo', "Read", "score") in numbers(report)
    assert not re.search(r"\\input", report.latex.read_text())
    for path in (report.csv, report.uncertainty, report.loyalty):
        assert not re.search(r"^\"?=", path.read_text(encoding="utf-8"), re.MULTILINE)


@numbers_only
def test_bold_are_rows_of_one_budget_in_the_columns_in_which_they_save_tokens(runs, tmp_path):
    # Two rows compress half of their tiles, but for Video's: there their scores are ones at full price. That the second
    # one has a document of four less, nobody can tell from chance; All Compress has a budget of its own.
    def write(name, title, right):
        tasks = {
            task: [
                sample(doc_id, float(doc_id < right), counts=[{"account": account(4, 2 * (task != "tiny_video"))}])
                for doc_id in range(4)
            ]
            for task in TINY_TASKS
        }
        return None, write_run(tmp_path / name, tasks, system="vico", title=title)

    own = [write("first", "First", 3), write("second", "Second", 2)]
    report = write_report([*own, *runs[1:]], table="tiny", out=tmp_path / "out")
    rows = {line.split(" | ")[0]: line.split(" | ") for line in report.markdown.read_text().splitlines()}
    first, second, other = rows["| First"], rows["| Second"], rows["| ViCO (All Compress)"]
    video = 1 + report.table.columns.index("Video")
    assert (first[1], second[1], other[1]) == ("**75.0**", "**50.0**", "25.0")
    assert (first[video], second[video], other[video]) == ("75.0", "50.0", "25.0")
    assert first[len(report.table.columns) + 1] == "**75.0%**"  # on average it saves
    assert r"\textbf{25.0}" not in report.latex.read_text()


@numbers_only
def test_rows_are_compared_with_each_other_where_that_is_asked_for(runs, tmp_path):
    out = tmp_path / "out"
    report = write_report(runs, table="tiny", out=out, against=["all"], criterion=Criterion(margin=20))
    with report.pairs.open(newline="", encoding="utf-8") as file:
        lines = {(line["row"], line["against"], line["benchmark"]): line for line in csv.DictReader(file)}
    assert len(lines) == 3 * 10
    assert lines["ViCO", "ViCO (All Compress)", "Read"]["difference"] == "50.0"
    assert lines["ViCO", "ViCO (All Compress)", "Avg."]["documents"] == "36"
    text = report.markdown.read_text()
    assert "- ViCO against ViCO (All Compress): +50.0 (" in text[text.index("**Comparisons between rows**") :]
    assert "retains at least 20%" in text
    again = write_report(runs, table="tiny", out=out)
    assert again.pairs is None
    assert not (out / "pairs.csv").exists()
    with pytest.raises(ReportError, match="no row `None`"):
        write_report(runs, table="tiny", out=out, against=["None"])


@numbers_only
def test_the_table_the_interval_and_the_bars_are_of_the_same_pictures(tmp_path):
    """Twenty pictures with three documents each; ViCO loses those about the first ten."""

    def write(name, title, right):
        lines = [
            sample(doc_id, float(right(doc_id)), counts=[{"account": account() | {"media": f"{doc_id // 3:08x}"}}])
            for doc_id in range(60)
        ]
        return None, write_run(tmp_path / name, dict.fromkeys(TINY_TASKS, lines), system=name, title=title)

    runs = [write("vanilla", "Vanilla", lambda _: True), write("vico", "ViCO", lambda doc_id: doc_id >= 30)]
    report = write_report(runs, table="tiny", out=tmp_path / "out")
    # Twenty sums of three, half of them lost: 100 sqrt(0.5 x 0.5 / 19); documents alone would say sqrt(60 / 20) less.
    by_hand = 100 * (0.25 / 19) ** 0.5
    assert value(report, "ViCO", "Read", "difference_standard_error") == pytest.approx(by_hand)
    # Nine benchmarks about the same twenty pictures say no more than one. The baseline has 100 everywhere, so the error
    # of its retention is the same.
    assert value(report, "ViCO", "Avg.", "difference_standard_error") == pytest.approx(by_hand)
    summary = report.table.summary.loc["ViCO"]
    assert summary["retention_se"] == pytest.approx(by_hand)
    with report.uncertainty.open(newline="", encoding="utf-8") as file:
        line = {line["benchmark"]: line for line in csv.DictReader(file)}["Avg."]
    assert float(line["standard_error"]) == pytest.approx(by_hand, rel=0.04)


@numbers_only
def test_a_failed_report_leaves_the_earlier_one_as_it_was(runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_report(runs, table="tiny", out=out, html=tmp_path / "page")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_text = Path.write_text

    def full(path, text, **options):
        if path.suffix == ".md":
            raise OSError(28, "No space left on device")
        return write_text(path, text, **options)

    def failing(name, function, message):
        with monkeypatch.context() as patch:
            patch.setattr(name, function)
            with pytest.raises(OutputError, match=message):
                write_report(runs[::2], table="tiny", out=out, html=tmp_path / "page")
        now = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert now == before

    failing("pathlib.Path.write_text", full, r"No space left on device. The folder is unchanged")

    def half(figure, folder, stem="retention"):
        (folder / f"{stem}.pdf").write_bytes(b"%PDF")
        raise OSError(28, "No space left on device")

    failing("vico_eval.report.figures.files.write_figure", half, "No space left on device")

    def no_copy(*_):
        raise OSError(28, "No space left on device")

    failing("vico_eval.report.page.site.Path.write_bytes", no_copy, r"page can't be written.*No space left on device")


@numbers_only
def test_pictures_that_a_report_has_not_are_not_left_from_an_earlier_one(runs, tmp_path, capsys):
    out = tmp_path / "out"
    first = write_report(runs, table="tiny", out=out)
    assert first.removed == ()
    assert (out / "ratios.png").is_file()
    (out / "notes.png").write_text("mine")
    (out / "other.csv").write_text("mine")
    # Without ViCO no row routes its tiles.
    second = write_report(runs[1:], table="tiny", out=out)
    assert [path.name for path in second.removed] == pictures("ratios")
    assert {path.name for path in out.iterdir()} == {path.name for path in second.paths} | {"notes.png", "other.csv"}
    print_report(second)
    assert "ratios.pdf" in capsys.readouterr().err
    # A folder of other things is no report's.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ratios.png").write_text("mine")
    assert write_report(runs[1:], table="tiny", out=tmp_path / "mine").removed == ()
    assert (tmp_path / "mine" / "ratios.png").read_text() == "mine"


@numbers_only
def test_a_folder_where_a_file_is_to_go_is_found_before_any_is_moved(runs, tmp_path):
    (tmp_path / "out" / "uncertainty.csv").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"uncertainty.csv is a folder, but a file should go there"):
        write_report(runs, table="tiny", out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["uncertainty.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"table": "vico-3"},
            "No run has a benchmark of this table.*needs the tasks docvqa_val, .*runs have tiny_bar",
        ),
        ({"table": "nothing"}, "unknown suite 'nothing'"),
        ({"baseline": "fastv"}, "no row of the system `fastv`"),
        ({"benchmarks": ["Reading"]}, "no benchmark Reading; it has Read, Doc"),
    ],
)
def test_what_cannot_be_reported_is_said(runs, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        write_report(runs, **{"table": "tiny", "out": tmp_path / "out"} | arguments)


def test_no_runs_the_same_run_twice_and_two_systems_in_a_row_are_errors(runs, tmp_path):
    with pytest.raises(ReportError, match="at least one run"):
        write_report([], table="tiny", out=tmp_path)
    with pytest.raises(ReportError, match="given twice"):
        write_report([*runs, runs[0]], table="tiny", out=tmp_path)
    with pytest.raises(ReportError, match="runs of two systems, vico and vanilla"):
        write_report([("Same", folder) for _, folder in runs[::2]], table="tiny", out=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written to"):
        write_report(runs, table="tiny", out=tmp_path / "file" / "out")


@numbers_only
def test_each_run_is_read_once_also_for_a_page(runs, tmp_path, monkeypatch):
    read = []

    def counting(folder, *arguments, **options):
        read.append(folder)
        return read_run(folder, *arguments, **options)

    monkeypatch.setattr("vico_eval.report.read_runs.read_run", counting)
    write_report(runs, table="tiny", out=tmp_path / "out", html=tmp_path / "page")
    assert sorted(read) == sorted(folder for _, folder in runs)


def test_the_report_needs_no_torch():
    code = (
        "import sys, pkgutil, importlib, vico_eval.report as report\n"
        "names = [module.name for module in pkgutil.walk_packages(report.__path__, 'vico_eval.report.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'transformers', 'lmms_eval', 'datasets') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
