"""What answers took: which lines of a journal count, what a row would take by itself, and when rows are compared."""

import json
from pathlib import Path

import pandas as pd
import pytest

from vico_eval.errors import ReportError
from vico_eval.report import write_report
from vico_eval.report.page.tables.times import TIME_HEADS, time_notes, time_rows
from vico_eval.report.read_runs import count_runs
from vico_eval.report.scores.benchmarks import table_spec
from vico_eval.report.stats.times import ALL, COLUMNS, document_times
from vico_eval.report.tables.grid import DASH
from vico_eval.runs.read import read_run
from vico_eval.runs.results import TimeSums

from .conftest import RECORD, account, answer_line, sample, write_run
from .test_vlmevalkit import write_vlmevalkit_run

DATA = Path(__file__).parent / "data"
COLUMNS_OF_TABLE = table_spec("tiny").benchmarks


def took(reading=0.0, encoding=0.0, own=0.0, rows=1):
    return {"reading": reading, "encoding": encoding, "own": own, "rows": rows}


def write_journal(folder, lines):
    """As runs write it: the times stand before the account."""
    ordered = [{name: line[name] for name in sorted(line, key=lambda name: name == "account")} for line in lines]
    (folder / "answers.rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ordered))


def answered(folder, lines):
    """A run of two documents whose samples say 7, with this journal: its times of the task."""
    write_run(folder, {"tiny_read": [sample(0, 1.0), sample(1, 1.0)]}, journal=False)
    write_journal(folder, lines)
    return read_run(folder).tasks["tiny_read"].times


def with_times(folder, seconds, documents=None):
    """Gives the answers of a run times, all of them or those to the documents of these numbers."""
    path = folder / "answers.rank0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changes = [{"seconds": seconds} if documents is None or line["doc_id"] in documents else {} for line in lines]
    write_journal(folder, [line | change for line, change in zip(lines, changes, strict=True)])
    return folder


def times_of(runs, baseline="Vanilla"):
    counted = count_runs(runs, COLUMNS_OF_TABLE, {})
    titles = [benchmark.title for benchmark in COLUMNS_OF_TABLE]
    return document_times(counted, list(dict.fromkeys(run.row for run in counted)), titles, baseline)


def line_of(times, row, benchmark=ALL):
    ((_, line),) = times[(times["row"] == row) & (times["benchmark"] == benchmark)].iterrows()
    return line


# Reading


def test_a_run_knows_what_its_documents_took(tmp_path):
    seconds = [took(1, 2, 4, rows=3), took(8, 16, 32)]
    lines = [answer_line(number, "7") | {"seconds": own} for number, own in enumerate(seconds)]
    assert answered(tmp_path, lines) == TimeSums(documents=2, reading=9, encoding=18, own=36, rows=frozenset({1, 3}))


def test_prefill_decoding_and_memory_are_known_where_all_answers_say_them(tmp_path):
    staged = took(own=4) | {"prefill": 2, "decode": 1, "peak_bytes": 3 * 2**20}
    lines = [answer_line(0, "7") | {"seconds": staged}, answer_line(1, "7") | {"seconds": took(own=8)}]
    times = answered(tmp_path, lines)
    assert (times.documents, times.staged_documents, times.prefill, times.peak_bytes) == (2, 1, 2, 3 * 2**20)
    # Of half the documents there is no mean, and a peak that is the least there was.
    line = line_of(times_of([(None, tmp_path)], "ViCO"), "ViCO")
    assert pd.isna(line["prefill_seconds"])
    assert line["peak_mib"] == 3
    more = staged | {"prefill": 4, "peak_bytes": 5 * 2**20}
    write_journal(tmp_path, [lines[0], answer_line(1, "7") | {"seconds": more}])
    line = line_of(times_of([(None, tmp_path)], "ViCO"), "ViCO")
    assert (line["prefill_seconds"], line["decode_seconds"], line["peak_mib"]) == (3, 1, 5)


def test_journals_of_older_versions_have_no_times(tmp_path):
    assert answered(tmp_path, [answer_line(0, "7"), answer_line(1, "7") | {"seconds": None}]) == TimeSums()


def test_documents_without_a_time_are_not_counted(tmp_path):
    times = answered(tmp_path, [answer_line(0, "7"), answer_line(1, "7") | {"seconds": took(own=3)}])
    assert (times.documents, times.own) == (1, 3)


def test_of_a_document_that_was_answered_again_only_its_answer_counts(tmp_path):
    lines = [
        answer_line(0, "7") | {"seconds": took(own=1)},
        answer_line(1, "7") | {"seconds": took(own=2)},
        answer_line(0, "7") | {"seconds": took(own=4)},  # by the run that went on
        answer_line(1, "8") | {"seconds": took(own=8)},  # after the samples were written
    ]
    assert answered(tmp_path, lines).own == 4 + 2


def test_an_answer_that_was_given_again_without_a_time_has_none(tmp_path):
    lines = [answer_line(0, "7") | {"seconds": took(own=1)}, answer_line(1, "7"), answer_line(0, "7")]
    assert answered(tmp_path, lines) == TimeSums()


@pytest.mark.parametrize("order", [(0, 1, 2, 1), (2, 1, 0, 1), (1, 2, 1, 0)])
def test_a_documents_requests_with_the_same_answer_count_once_each(tmp_path, order):
    line = sample(0, 1.0, counts=[{"account": account()}] * 3) | {"resps": [["7"], ["7"], ["7"]]}
    write_run(tmp_path, {"tiny_read": [line]}, journal=False)
    own = (1, 10, 100)
    write_journal(
        tmp_path, [answer_line(0, "7", repeat=repeat) | {"seconds": took(own=own[repeat])} for repeat in order]
    )
    times = read_run(tmp_path).tasks["tiny_read"].times
    assert (times.documents, times.own) == (1, 111)
    write_journal(
        tmp_path,
        [answer_line(0, "7", repeat=repeat) | ({"seconds": took(own=1)} if repeat else {}) for repeat in range(3)],
    )
    assert read_run(tmp_path).tasks["tiny_read"].times == TimeSums()


def test_a_document_that_failed_has_no_time(tmp_path):
    lines = [sample(0, 1.0), sample(1, 0.0, counts=[None]) | {"filtered_resps": ""}]
    write_run(tmp_path, {"tiny_read": lines}, journal=False)
    write_journal(tmp_path, [answer_line(0, "7") | {"seconds": took(own=1)}])
    failure = {"task": "tiny_read", "split": "test", "doc_id": 1, "reason": "no such picture"}
    (tmp_path / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    assert read_run(tmp_path).tasks["tiny_read"].times == TimeSums(documents=1, own=1, rows=frozenset({1}))


@pytest.mark.parametrize(
    "wrong",
    [
        *('"own": -1', '"own": NaN', '"own": Infinity', '"own": 1e999', '"own": 1e308', '"own": "0.5"', '"own": true'),
        *('"own": null', '"own": [1]', '"rows": 0', '"rows": "2"', '"rows": 1.5', '"colour": 1'),
    ],
)
def test_a_time_that_is_none_is_refused_and_its_line_named(tmp_path, wrong):
    answered(tmp_path, [answer_line(0, "7"), answer_line(1, "7") | {"seconds": took(own=1)}])
    path = tmp_path / "answers.rank0.jsonl"
    name = wrong.partition(":")[0]
    text = path.read_text()
    right = {'"own"': '"own": 1', '"rows"': '"rows": 1'}.get(name, '"own": 1')
    path.write_text(text.replace(right, wrong if name in text else f"{right}, {wrong}"))
    with pytest.raises(ReportError, match=r"rank0\.jsonl, line 2, `seconds` doesn't fit the schema of AnswerSeconds"):
        read_run(tmp_path)


def test_times_that_are_no_object_are_refused(tmp_path):
    for wrong in ("7", [], 3.5):
        with pytest.raises(ReportError, match=r"line 2, `seconds` doesn't fit"):
            answered(tmp_path, [answer_line(0, "7"), answer_line(1, "7") | {"seconds": wrong}])


def test_a_run_of_vlmevalkit_has_times_too(tmp_path):
    folder = write_vlmevalkit_run(tmp_path / "run")
    with_times(folder, took(own=2), documents=(0, 2))
    times = read_run(folder).tasks["MMStar"].times
    assert (times.documents, times.own) == (2, 4)


def test_runs_that_other_programs_started_have_no_times():
    for folder in ("ms_vlmeval_0_0_20", "lmms_eval_internvl_hf"):
        run = read_run(DATA / folder)
        assert run.tasks
        assert all(task.times == TimeSums() for task in run.tasks.values())


# Rows


@pytest.fixture
def rows(tiny_run):
    """Vanilla and ViCO, 36 documents each, as one pass answered them."""
    vanilla = with_times(tiny_run("vanilla", 4, 0, title="Vanilla"), took(0.5, 2, 8, rows=2))
    vico = with_times(tiny_run("vico", 3, 2), took(0.5, 2, 3, rows=2))
    return [("Vanilla", vanilla), ("ViCO", vico)]


def change_record(folder, **values):
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_row_takes_its_encoding_and_its_own_work_relative_to_the_baseline(rows):
    times = times_of(rows)
    assert tuple(times.columns) == COLUMNS
    assert list(times["benchmark"])[:10] == [*(benchmark.title for benchmark in COLUMNS_OF_TABLE), ALL]
    for benchmark, documents in (("Read", 4), (ALL, 36)):
        assert line_of(times, "ViCO", benchmark).dropna().to_dict() == {
            "row": "ViCO",
            "benchmark": benchmark,
            "documents": documents,
            "timed_documents": documents,
            "reading_seconds": 0.5,
            "encoding_seconds": 2,
            "own_seconds": 3,
            "alone_seconds": 5,
            "own_relative": 37.5,  # 3 / 8
            "alone_relative": 50,  # 5 / 10
            "rows_sharing": "2",
            "device": "cpu",
            "batch_size": "8",
            "processes": "1",
            "not_comparable": "",
        }
    assert {*line_of(times, "ViCO")[["prefill_seconds", "decode_seconds", "peak_mib"]].isna()} == {True}
    assert line_of(times, "Vanilla")[["own_relative", "alone_relative"]].tolist() == [100, 100]


def test_without_any_time_there_is_no_table_of_times(tiny_run):
    assert times_of([("Vanilla", tiny_run("vanilla", 4, 0)), ("ViCO", tiny_run("vico", 3, 2))]) is None


def test_several_runs_of_a_row_are_summed(rows, tiny_run):
    seeds = []
    for seed, own in ((0, 3), (1, 5)):
        run = tiny_run(f"random{seed}", 3, 2, method_args={"seed": seed})
        change_record(run, system="random")
        seeds.append(("Random", with_times(run, took(encoding=2, own=own, rows=1 + seed))))
    line = line_of(times_of([rows[0], *seeds]), "Random")
    assert (line["documents"], line["timed_documents"], line["not_comparable"]) == (72, 72, "")
    assert (line["own_seconds"], line["alone_relative"], line["rows_sharing"]) == (4, 60, "1 and 2")
    change_record(seeds[1][1], device="cuda:0")
    line = line_of(times_of([rows[0], *seeds]), "Random")
    assert (line["device"], line["own_seconds"]) == ("cpu and cuda:0", 4)
    assert line["not_comparable"] == "this row and Vanilla differ in device (cpu and cuda:0)"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "cuda:0"}, "device (cuda:0 and cpu)"),
        ({"settings": {"batch_size": 16}}, "batch size (16 and 8)"),
        ({"settings": {}}, "batch size (unknown and 8)"),
        ({"num_processes": 2}, "number of processes (2 and 1)"),
        ({"dtype": "float32"}, "dtype (float32 and bfloat16)"),
        ({"attention": "eager"}, "attention (eager and sdpa)"),
        ({"settings": {"batch_size": 8, "engine": "vllm"}}, "engine (vllm and transformers)"),
        ({"versions": RECORD["versions"] | {"torch": "2.16.0"}}, "version of torch (2.16.0 and 2.15.0)"),
        ({"device": "cuda:0", "num_processes": 2}, "device (cuda:0 and cpu); number of processes (2 and 1)"),
    ],
)
def test_rows_that_ran_otherwise_than_the_baseline_have_no_percentage(rows, changes, said):
    change_record(rows[1][1], **changes)
    times = times_of(rows)
    for benchmark in ("Doc", ALL):
        line = line_of(times, "ViCO", benchmark)
        assert line["not_comparable"] == f"this row and Vanilla differ in {said}"
        assert line[["own_relative", "alone_relative"]].isna().all()
        assert line["alone_seconds"] == 5
    assert line_of(times, "Vanilla")["not_comparable"] == ""


def test_a_row_of_which_some_documents_have_times_says_how_many_and_has_no_percentage(rows, tiny_run):
    partly = with_times(tiny_run("fastv", 3, 0, title="FastV"), took(own=6), documents=(0, 2, 3))
    times = times_of([*rows, ("FastV", partly)])
    line = line_of(times, "FastV")
    assert (line["documents"], line["timed_documents"], line["own_seconds"]) == (36, 27, 6)
    assert line["not_comparable"] == "only 27 of 36 documents have times"
    assert line[["own_relative", "alone_relative"]].isna().all()
    line = line_of(times_of([("FastV", partly), rows[1]], baseline="FastV"), "ViCO")
    assert line["not_comparable"] == "FastV: only 27 of 36 documents have times"
    assert pd.isna(line["own_relative"])


def test_rows_without_times_stand_beside_those_that_have_them(rows, tiny_run):
    old = tiny_run("old", 3, 0, title="Old")
    line = line_of(times_of([*rows, ("Old", old)]), "Old")
    assert (line["documents"], line["timed_documents"]) == (36, 0)
    assert line["not_comparable"] == "no documents have times"
    assert line["reading_seconds":"processes"].isna().all()
    line = line_of(times_of([("Old", old), rows[1]], baseline="Old"), "ViCO")
    assert line["not_comparable"] == "Old: no documents have times"
    assert line["alone_seconds"] == 5


def test_rows_that_answered_other_benchmarks_are_compared_where_both_were_run(rows, tmp_path):
    (samples,) = rows[1][1].rglob("*_results.json")
    results = json.loads(samples.read_text())
    for part in ("results", "configs", "versions", "n-samples"):
        results[part].pop("tiny_video")
    results["group_subtasks"]["tiny"].remove("tiny_video")
    samples.write_text(json.dumps(results))
    times = times_of(rows)
    assert line_of(times, "ViCO", "Read")["own_relative"] == 37.5
    line = line_of(times, "ViCO")
    assert (line["documents"], line["own_seconds"]) == (32, 3)
    assert line["not_comparable"] == "Vanilla answered different documents"
    assert "Video" not in set(times[times["row"] == "ViCO"]["benchmark"])


def test_a_baseline_that_took_no_time_makes_no_percentage(rows):
    with_times(rows[0][1], took())
    line = line_of(times_of(rows), "ViCO")
    assert line["not_comparable"] == "Vanilla took no time"
    assert pd.isna(line["own_relative"])


# Showing


def test_the_page_has_a_line_a_row_and_says_why_one_has_no_percentage(rows, tiny_run):
    partly = with_times(tiny_run("fastv", 3, 0, title="FastV"), took(0.012345, 123.45, 0, rows=9), documents=(0, 2, 3))
    times = times_of([*rows, ("FastV", partly), ("Old", tiny_run("old", 3, 0))])
    shown = {row.title: [cell.text for cell in row.cells] for row in time_rows(times, "Vanilla")}
    assert all(len(cells) == len(TIME_HEADS) for cells in shown.values())
    assert shown["ViCO"] == ["36", "0.5", "2", "3", "5", "37.5%", "50.0%", "2", "cpu", "8", "1"]
    assert shown["FastV"] == ["27 of 36", "0.0123", "123", "0", "123", DASH, DASH, "9", "cpu", "8", "1"]
    assert shown["Old"] == ["0 of 36", *[DASH] * 10]
    notes = time_notes(times, "Vanilla")
    assert "In a pass of several rows, reading and encoding were done once for all of them" in notes[0]
    assert notes[2:] == [
        "FastV has no percentage: only 27 of 36 documents have times.",
        "Old has no percentage: no documents have times.",
    ]


def test_a_report_writes_times_and_leaves_its_other_files_as_they_are(rows, tmp_path):
    hostile = '=<img src=x onerror="alert(1)">'
    change_record(rows[1][1], device=hostile)
    out, html = tmp_path / "out", tmp_path / "page"
    report = write_report(rows, table="tiny", out=out, html=html)
    assert report.times == out / "time.csv"
    assert report.times in report.paths
    frame = pd.read_csv(report.times, dtype=str, keep_default_na=False)
    assert tuple(frame.columns) == COLUMNS
    own = frame[(frame["row"] == "ViCO") & (frame["benchmark"] == ALL)].iloc[0]
    named = ["own_seconds", "alone_seconds", "own_relative", "alone_relative", "rows_sharing", "device"]
    assert own[named].tolist() == ["3.0", "5.0", "", "", "2", f"'{hostile}"]
    page = (html / "index.html").read_text()
    assert page.count('href="#time"') == page.count('<table class="times">') == 1
    assert "<img" not in page
    assert "ViCO has no percentage: this row and Vanilla differ in device (=&lt;img" in page
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for _, folder in rows:
        with_times(folder, None)
    again = write_report(rows, table="tiny", out=out, html=html)
    assert again.times is None
    assert again.removed == (out / "time.csv", out / "costs.csv")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        name: content for name, content in before.items() if name not in ("time.csv", "costs.csv")
    }
    assert "#time" not in (html / "index.html").read_text()
