"""What is refused because it would mix what can't be compared, or is no score at all."""

import json
import shutil
from pathlib import Path

import pytest

from vico_eval.errors import ReportError
from vico_eval.report import write_report
from vico_eval.runs.read import read_run

from .conftest import RECORD, account, sample, write_run, write_tiny_run
from .test_vlmevalkit import SETTINGS, write_vlmevalkit_run

DATA = Path(__file__).parent / "data"
INTERNVL = DATA / "lmms_eval_internvl_hf"
VANILLA = DATA / "vico_eval_vanilla"

pytestmark = pytest.mark.usefixtures("unsaved_pictures")


def report_of(runs, out, benchmarks=("Read",), table="tiny", **arguments):
    return write_report([(None, run) for run in runs], table=table, out=out, benchmarks=list(benchmarks), **arguments)


def error_of(runs, tmp_path, **arguments):
    with pytest.raises(ReportError) as caught:
        report_of(runs, tmp_path / "out", **arguments)
    return str(caught.value)


def seeds(tmp_path, *others):
    """A baseline, and two runs of one row, of which the second's record differs."""
    row = {"title": "Random", "method_args": {"seed": 0, "ratio": 0.5}}
    baseline = write_tiny_run(tmp_path, "vanilla", 4, 0, title="Vanilla")
    runs = [write_tiny_run(tmp_path / "first", "random", 1, 2, **row)]
    for number, other in enumerate(others):
        started = f"2026-11-21T11:40:{number + 10}+00:00"
        runs.append(write_tiny_run(tmp_path / f"other{number}", "random", 3, 2, **{**row, "started": started, **other}))
    return [baseline, *runs]


def settings(**changed):
    return {"settings": {"batch_size": 8, "max_tiles": None, **changed}}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (settings(max_tiles=6), "settings.max_tiles None and 6"),
        (settings(tiles="2x2"), "settings.tiles None and 2x2"),  # a record without it was cut by shape
        (settings(engine="vllm"), "settings.engine transformers and vllm"),
        ({"dtype": "float32"}, "dtype bfloat16 and float32"),
        ({"attention": "eager"}, "attention sdpa and eager"),
        ({"method_args": {"seed": 1, "ratio": 0.6}}, "ratio 0.5 and 0.6"),
        ({"checkpoint": RECORD["checkpoint"] | {"sha256": "cd" * 32}}, "checkpoint "),
    ],
)
def test_runs_of_one_row_differ_in_nothing_that_makes_another_row(tmp_path, other, said):
    message = error_of(seeds(tmp_path, other), tmp_path)
    assert "are both given as `Random`, but differ in " in message
    assert said in message


@pytest.mark.parametrize("name", ["num_frames", "total_max_tiles", "label_images", "system_prompt", "thinking"])
def test_every_setting_but_those_of_speed_makes_another_row(tmp_path, name):
    baseline, *runs = seeds(tmp_path, {})
    for run, value in zip(runs, (1, 2), strict=True):
        record = json.loads((run / "record.json").read_text())
        record["settings"][name] = value
        (run / "record.json").write_text(json.dumps(record))
    assert f"settings.{name} 1 and 2" in error_of([baseline, *runs], tmp_path)


def test_seeds_batch_size_device_processes_and_versions_may_differ_within_a_row(tmp_path):
    others = (
        {"method_args": {"seed": 1, "ratio": 0.5}},
        {**settings(batch_size=1), "device": "cuda:0", "num_processes": 4},
        {"versions": {"vico_eval": "0.2.0"}, "command": ["other"], "previews": "../previews"},
        settings(a_new_one=True),
    )
    report = report_of(seeds(tmp_path, *others), tmp_path / "out")
    assert "Random: mean of 5 runs." in report.table.notes


def test_runs_of_one_row_by_vlmevalkit_are_asked_the_same(tmp_path):
    runs = [
        write_vlmevalkit_run(tmp_path / name, record={"started": started, "settings": {**SETTINGS, "max_tiles": tiles}})
        for name, started, tiles in (("a", RECORD["started"], 6), ("b", "2026-11-22T11:40:00+00:00", 12))
    ]
    message = error_of(runs, tmp_path, benchmarks=["MMStar"], table="vico-1", baseline="ViCO")
    assert "differ in settings.max_tiles 6 and 12" in message


def with_other_words(run, number, key="input"):
    for path in run.rglob("*_samples_tiny_read.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines[:number]:
            line[key] = f"{line[key]} now?"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_rows_that_were_asked_other_things_are_refused(tmp_path):
    lines = [sample(doc_id, 1.0) for doc_id in range(40)]
    ours, theirs = (
        write_run(tmp_path / name, {"tiny_read": lines}, system=name, title=name) for name in ("vanilla", "vico")
    )
    # Two of forty, 5%: a data set's mistakes, mended.
    notes = report_of([ours, with_other_words(theirs, 2)], tmp_path / "out").table.notes
    assert any(note.endswith("have different questions in 2 of 40 documents.") for note in notes)
    for number in (3, 40):
        message = error_of([ours, with_other_words(theirs, number)], tmp_path)
        assert f"have different questions in {number} of 40 documents. Rows of one table need the same" in message


def test_rows_with_another_right_answer_are_refused(tmp_path):
    lines = [sample(doc_id, 1.0) for doc_id in range(40)]
    ours, theirs = (
        write_run(tmp_path / name, {"tiny_read": lines}, system=name, title=name) for name in ("vanilla", "vico")
    )
    message = error_of([ours, with_other_words(theirs, 1, "target")], tmp_path)
    assert "have different right answers in 1 of 40 documents. Rows of one table need the same" in message


def test_rows_that_were_scored_by_other_code_are_refused(tmp_path):
    def run(name, scorers):
        versions = {"vico_eval": "0.1.0", "lmms_eval": f"0.7.{len(name)}"}
        return write_tiny_run(tmp_path, name, 4, 0, title=name, versions=versions, scorers=scorers)

    old, new = run("vanilla", {"tiny_read": "aa", "tiny_count": "cc"}), run("vico", {"tiny_read": "bb"})
    unknown, same = run("pool", {}), run("fastv", {"tiny_read": "aa", "tiny_count": "cc"})
    message = error_of([old, new], tmp_path)
    assert "tiny_read: " in message
    assert "were scored by different code (aa and bb; lmms-eval 0.7.7 and 0.7.4). Rows of one table" in message
    report_of([old, same], tmp_path / "same")
    report_of([old, unknown], tmp_path / "unknown")  # an older run, which doesn't say


@pytest.mark.parametrize(("value", "shown"), [(1.5, "150"), (-0.25, "-25"), (85.0, "8500")])
def test_a_score_that_none_can_have_is_refused(tmp_path, value, shown):
    """A metric on another scale than the catalogue says would be a number of thousands in the table."""
    run = write_run(tmp_path / "run", {"tiny_read": [sample(0, value)] * 1}, system="vanilla", title="Vanilla")
    message = error_of([run], tmp_path)
    assert f"_results.json: Read has a score of {shown}; expected a number from 0 to 100. Files of tiny_read" in message


def test_documents_whose_mean_hides_what_they_have_are_refused(tmp_path):
    lines = [sample(doc_id, value) for doc_id, value in enumerate((0.5, 2.0, -1.0))]
    run = write_run(tmp_path / "run", {"tiny_read": lines}, system="vanilla", title="Vanilla")
    message = error_of([run], tmp_path)
    assert "_samples_tiny_read.jsonl: document 1 has 200 of 100 points of Read; expected 0 to 100." in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None, "0.5"])
def test_a_score_that_is_no_number_is_refused(tmp_path, value):
    metrics = {"tiny_read": {"exact_match,none": value}}
    run = write_run(tmp_path / "lmms", {"tiny_read": [sample(0, 1.0)]}, metrics=metrics, system="vanilla")
    assert "expected a number" in error_of([run], tmp_path)
    run = write_vlmevalkit_run(
        tmp_path / "vlmevalkit", metrics={"split=val|Overall": value}, record={"system": "vanilla"}
    )
    assert "expected a number" in error_of([run], tmp_path, benchmarks=["MMStar"], table="vico-1")


def test_nan_is_a_scorers_word_for_too_few_documents_in_limited_runs_only(tmp_path):
    lines = [{name: value for name, value in sample(0, 1.0).items() if name != "exact_match"}]
    metrics = {"mmbench_v11_en_dev": {"mmbench_v11_exact,none": float("nan")}}
    arguments = {"metrics": metrics, "system": "vanilla", "title": "Vanilla"}
    limited = write_run(tmp_path / "limited", {"mmbench_v11_en_dev": lines}, original=5, **arguments)
    report = report_of([limited], tmp_path / "out", benchmarks=["MMBench V1.1"], table="vico-1")
    assert "| Vanilla | – |" in report.markdown.read_text()
    whole = write_run(tmp_path / "whole", {"mmbench_v11_en_dev": lines}, **arguments)
    message = error_of([whole], tmp_path, benchmarks=["MMBench V1.1"], table="vico-1")
    assert "MMBench V1.1 has a score of nan; expected a number from 0 to 100." in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_routers_score_that_is_no_probability_is_refused(tmp_path, value):
    counts = [{"account": account() | {"p_compress": [0.5, value, 0.5, 0.5]}}]
    message = error_of([write_run(tmp_path / "run", {"tiny_read": [sample(0, 1.0, counts=counts)]})], tmp_path)
    assert "line 1, `token_counts`" in message
    assert "`p_compress.1`: " in message


def test_a_record_with_numbers_that_are_none_is_refused(tmp_path):
    for name in ("method_args", "settings"):
        record = {name: {"threshold": [float("nan")]}}
        message = error_of([write_run(tmp_path / name, {"tiny_read": [sample(0, 1.0)]}, **record)], tmp_path)
        assert f"{name} holds a number that is not finite" in message


def blank(run, *documents):
    """Without token counts, as many of lmms-eval's models leave them."""
    (path,) = run.rglob("*_samples_tiny_read.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["token_counts"] = [None]
        if line["doc_id"] in documents:
            line["filtered_resps"] = ""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_blank_answers_of_others_runs_count_as_wrong_where_the_reader_says_so(tmp_path):
    run = shutil.copytree(INTERNVL, tmp_path / "run")
    blank(run, 1, 3)
    documents = read_run(run).tasks["tiny_read"].documents
    assert [document.failure is None for document in documents] == [True, False, True, False]
    documents = read_run(run, blank_is_wrong=True).tasks["tiny_read"].documents
    assert [(document.answer == "", document.failure) for document in documents] == [
        *((False, None), (True, None)),
        *((False, None), (True, None)),
    ]
    benchmarks = ["Read", "Count", "Colour"]
    kept = report_of([VANILLA, run], tmp_path / "kept", benchmarks).markdown.read_text()
    assert "| vico-tiny-base-HF (internvl\\_hf) | failed | 0.0 | 100.0 | – |" in kept
    report = report_of([VANILLA, run], tmp_path / "out", benchmarks, blank_is_wrong=True)
    assert "| vico-tiny-base-HF (internvl\\_hf) | 75.0 | 0.0 | 100.0 | 116.7% |" in report.markdown.read_text()
    assert any("tiny_read: 2 of 4 answers are blank or missing and, as asked" in note for note in report.table.notes)


def test_a_blank_answer_of_ours_is_never_taken_for_a_wrong_one(tmp_path):
    lines = [sample(0, 1.0), sample(1, 0.0, counts=[None]) | {"filtered_resps": ""}]
    with pytest.raises(ReportError, match="document 1 without an answer"):
        read_run(write_run(tmp_path, {"tiny_read": lines}), blank_is_wrong=True)


def test_the_command_line_has_the_way_out(tmp_path):
    from typer.testing import CliRunner

    from vico_eval.cli import app

    run = shutil.copytree(INTERNVL, tmp_path / "run")
    blank(run, 1)
    arguments = ["report", str(VANILLA), str(run), "--table", "tiny", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--blank", "wrong"])
    assert result.exit_code == 0, result.output
    assert "as asked for, count as lmms-eval scored" in (tmp_path / "out" / "table3.md").read_text()
    assert CliRunner().invoke(app, [*arguments, "--blank", "right"]).exit_code == 2
