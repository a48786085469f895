"""Answers that were cut off or loop: counted per benchmark, and never taken for 0 where nobody recorded it."""

import csv
import json
import math

import pytest

from vico_eval.report import write_report
from vico_eval.report.endings.counts import ALL, count_endings, endings
from vico_eval.report.read_runs import count_runs
from vico_eval.report.scores.benchmarks import table_spec
from vico_eval.report.stats.side_by_side import measure
from vico_eval.runs.results import Document
from vico_eval.runs.schema import TokenAccount

from .conftest import account, sample, write_run

BENCHMARKS = [benchmark for benchmark in table_spec("tiny").benchmarks if benchmark.title in ("Read", "Count")]
LOOP = "So it is a bus. Wait, no. " * 8

pytestmark = pytest.mark.usefixtures("unsaved_pictures")


def line(number, finish="stop", text="7"):
    counts = [{"output_tokens": 2, "account": account() | {"finish": finish}}]
    return sample(number, 1.0, counts=counts) | {"filtered_resps": text}


def document(*ends, said=("7",)):
    accounts = tuple(TokenAccount(**account(), finish=end) for end in ends)
    return Document(0, {}, accounts or None, said=said)


def of_run(folder, read, count=None, row="Vanilla"):
    tasks = {"tiny_read": read} | ({"tiny_count": count} if count is not None else {})
    return row, write_run(folder, tasks, system=row.lower(), title=row)


def lines_of(runs):
    measured = measure(count_runs(runs, BENCHMARKS, {}), BENCHMARKS)
    rows = list(dict.fromkeys(row for row, _ in runs))
    return endings(measured.cells, rows, [one.title for one in BENCHMARKS]).set_index(["row", "benchmark"])


def report_of(tmp_path, runs, **options):
    return write_report(runs, table="tiny", benchmarks=["Read", "Count"], out=tmp_path / "out", **options)


def test_documents_are_counted_by_how_their_answers_ended():
    documents = [document("stop"), document("length"), document("stop", "length", said=("7", LOOP)), document("length")]
    assert count_endings(documents) == {"answered": 4, "ends_known": 4, "truncated": 3, "looping": 1}


def test_what_accounts_do_not_say_is_unknown_and_not_none():
    counts = count_endings([document(None), document(), document("stop", None), document("stop", said=None)])
    assert math.isnan(counts.pop("truncated"))
    assert counts == {"answered": 3, "ends_known": 0, "looping": 0}
    assert count_endings([document(None), document("stop")])["truncated"] == 0


def test_counts_by_benchmark_and_in_all(tmp_path):
    read = [line(0), line(1, "length"), line(2, "length", LOOP), line(3)]
    found = lines_of([of_run(tmp_path / "run", read, [line(0, "length"), line(1)])])
    assert found.loc[("Vanilla", "Read"), ["documents", "truncated", "truncated_percent"]].tolist() == [4, 2, 50]
    assert found.loc[("Vanilla", "Read"), ["looping", "looping_percent"]].tolist() == [1, 25]
    assert found.loc[("Vanilla", "Count"), ["truncated", "truncated_percent", "looping"]].tolist() == [1, 50, 0]
    assert found.loc[("Vanilla", ALL), ["documents", "truncated", "truncated_percent"]].tolist() == [6, 3, 50]


def test_a_run_of_an_older_version_has_unknown_ends_and_known_loops(tmp_path):
    found = lines_of([of_run(tmp_path / "run", [line(0, None), line(1, None, LOOP)])])
    for benchmark in ("Read", ALL):
        own = found.loc[("Vanilla", benchmark)]
        assert math.isnan(own["truncated"])
        assert math.isnan(own["truncated_percent"])
        assert own[["ends_known", "looping"]].tolist() == [0, 1]


def test_loops_are_looked_for_in_what_the_model_said(tmp_path):
    # The task's filter took a letter out of it.
    read = [line(0), line(1, "length", text="B")]
    folder = write_run(tmp_path / "run", {"tiny_read": read}, journal=False)
    results = next(folder.rglob("*_results.json"))
    content = json.loads(results.read_text())
    content["configs"]["tiny_read"]["filter_list"] = [{"name": "letter"}]
    results.write_text(json.dumps(content))
    own = [{"task": "tiny_read", "split": "test", "doc_id": number, "repeat": 0, "asked": "so"} for number in (0, 1)]
    said = zip(own, ("7", LOOP), read, strict=True)
    lines = [one | {"text": text, "account": kept["token_counts"][0]["account"]} for one, text, kept in said]
    (folder / "answers.rank0.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert lines_of([("Vanilla", folder)]).loc[("Vanilla", "Read"), "looping"] == 1


def test_the_table_notes_many_of_them(tmp_path):
    read = [line(number, "length" if number < 3 else "stop", LOOP if number < 2 else "7") for number in range(200)]
    count = [line(number, "length" if number < 1 else "stop") for number in range(100)]
    (_, folder) = of_run(tmp_path / "run", read, count)
    written = report_of(tmp_path, [(None, folder)])
    notes = [note for note in written.table.notes if "answers" in note]
    # One of a hundred is not more than 1%, and neither are two loops of two hundred.
    assert notes == ["Vanilla, answers cut off at the limit on new tokens: 1.5% in Read."]


def test_a_note_says_how_many_answers_say_it(tmp_path):
    # The run was begun by an older version.
    read = [line(number, None if number < 6 else "length") for number in range(8)]
    written = report_of(tmp_path, [of_run(tmp_path / "run", read, [line(0)])])
    assert "Vanilla, answers cut off at the limit on new tokens: 100.0% of the 2 answers with a known end in Read." in (
        written.table.notes
    )


def test_the_report_has_a_file_and_a_section_of_the_page(tmp_path):
    runs = [of_run(tmp_path / "run", [line(0, "length", LOOP), line(1)], [line(0, None)])]
    written = report_of(tmp_path, runs, html=tmp_path / "page")
    with written.endings.open(newline="", encoding="utf-8") as file:
        lines = {(line["row"], line["benchmark"]): line for line in csv.DictReader(file)}
    assert lines["Vanilla", "Read"]["truncated"] == "1"
    assert lines["Vanilla", "Count"]["truncated"] == ""
    page = written.html.read_text()
    assert "Truncated answers" in page
    assert "50.0%<small>loops 50.0%</small>" in page


def test_a_page_of_runs_that_say_nothing_has_no_such_section(tmp_path):
    runs = [of_run(tmp_path / "run", [line(0, None)], [line(0, None)])]
    assert "cut off" not in report_of(tmp_path, runs, html=tmp_path / "page").html.read_text()
