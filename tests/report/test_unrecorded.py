"""Runs that other programs started: what lmms-eval's own model and VLMEvalKit wrote, as a row of a table."""

import csv
import json
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest

from vico_eval.commands.work.report import titled_run
from vico_eval.errors import ReportError
from vico_eval.report import write_report
from vico_eval.runs.read import read_run

from .conftest import sample, write_run

DATA = Path(__file__).parent / "data"
INTERNVL = DATA / "lmms_eval_internvl_hf"
VANILLA = DATA / "vico_eval_vanilla"
VLMEVALKIT = DATA / "ms_vlmeval_0_0_20"
BENCHMARKS = ["Read", "Count", "Colour"]
TITLE = "vico-tiny-base-HF (internvl_hf)"

pytestmark = pytest.mark.usefixtures("unsaved_pictures")


def copy(source, folder):
    shutil.copytree(source, folder)
    return folder


def samples(folder, task="tiny_read"):
    return next(folder.rglob(f"*_samples_{task}.jsonl"))


def change_lines(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def report_of(runs, out, **arguments):
    return write_report(runs, table="tiny", out=out, benchmarks=BENCHMARKS, **arguments)


def lines_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_record_is_what_lmms_eval_says_and_no_more():
    record = read_run(INTERNVL).record
    assert (record.title, record.system, record.method) == (TITLE, "internvl_hf", "internvl_hf")
    assert record.checkpoint.path == "checkpoints/vico-tiny-base-HF"
    assert record.method_args == {"device_map": "cpu", "max_patches": "12"}
    assert (record.settings["limit"], record.device) == (4.0, "cpu")
    assert record.started == datetime(2026, 11, 22, 4, 56, 33, tzinfo=timezone(timedelta(hours=8)))
    assert record.made_from == "checkpoints__vico-tiny-base-HF/20261122_045633_results.json"
    assert (record.dtype, record.attention, record.num_processes, record.checkpoint.sha256) == (None,) * 4
    assert (record.command, record.donor) == ((), None)


def test_scores_answers_and_differences_are_there_and_nothing_that_needs_counts(tmp_path):
    report = report_of([(None, VANILLA), (None, INTERNVL)], tmp_path)
    text = report.markdown.read_text()
    # Read 75, Count 0, Colour 100 against 25, 25, 100: +50, -25, 0. Best, but nobody knows whether it saves a token.
    assert "| vico-tiny-base-HF (internvl\\_hf) | 75.0 | 0.0 | 100.0 | 116.7% | +8.3 ± 12.7 | – |" in text
    assert "compressed tiles" not in text.split("\n\n")[1]
    (note,) = [note for note in report.table.notes if note.startswith(f"{TITLE}: started by lmms-eval")]
    assert "no ratio of compressed tiles, no share of visual tokens and no place in the picture of retention" in note
    values = {(line["row"], line["benchmark"], line["metric"]): line["value"] for line in lines_of(report.csv)}
    for metric in ("compressed_tile_ratio", "visual_token_share"):
        assert {values[TITLE, benchmark, metric] for benchmark in (*BENCHMARKS, "Avg.")} == {""}
    read = next(line for line in lines_of(report.loyalty) if line["benchmark"] == "Read")
    assert (read["same_answer"], read["lost"], read["gained"]) == ("50.0", "0.0", "2.0")
    # Which documents share pictures is the documents', and the other row says it.
    assert {line["pictures"] for line in lines_of(report.uncertainty)} == {"4", "12"}
    assert not any("was run with another" in note for note in report.table.notes)


def test_where_no_row_has_accounts_there_is_no_picture_and_no_grouping(tmp_path):
    other = copy(INTERNVL, tmp_path / "other")
    report = report_of([("One", INTERNVL), ("Other", other)], tmp_path / "out", baseline="One")
    assert any(note.startswith("No figure: ") for note in report.table.notes)
    assert any("the runs don't record shared images" in line for line in report.table.comparison)
    provenance = json.loads(report.provenance.read_text())
    assert {cell["visual_tokens"] for cell in provenance["cells"]} == {None}
    assert [run["record"]["made_from"][-13:] for run in provenance["runs"]] == ["_results.json"] * 2
    for line in lines_of(report.csv):
        assert all((tmp_path / "out" / place).is_file() for place in line["records"].split(";"))


def test_a_blank_answer_counts_only_if_its_tokens_were_counted(tmp_path):
    counted = copy(INTERNVL, tmp_path / "counted")
    change_lines(samples(counted), lambda line: line | ({"filtered_resps": ""} if line["doc_id"] == 1 else {}))
    documents = read_run(counted).tasks["tiny_read"].documents
    assert [document.answer for document in documents][:2] == ["301", ""]

    uncounted = copy(INTERNVL, tmp_path / "uncounted")
    blank = {"filtered_resps": "", "token_counts": [None]}
    change_lines(samples(uncounted), lambda line: line | (blank if line["doc_id"] == 1 else {}))
    report = report_of([(None, VANILLA), ("HF", uncounted)], tmp_path / "out")
    line = next(line for line in report.markdown.read_text().splitlines() if line.startswith("| HF |"))
    assert line.startswith("| HF | failed | 0.0 | 100.0 | – |")
    assert any("HF, Read: 1 of 4 documents could not be answered (blank, and" in note for note in report.table.notes)


def test_a_run_of_ours_that_lost_its_record_is_none_of_these(tmp_path):
    folder = copy(VANILLA, tmp_path / "run")
    (folder / "record.json").unlink()
    with pytest.raises(ReportError, match=r"has no record.json, but token accounts"):
        read_run(folder)


def test_two_runs_of_one_row_have_a_mean_and_a_spread(tmp_path):
    other = copy(INTERNVL, tmp_path / "other")
    (path,) = other.rglob("*_results.json")
    results = json.loads(path.read_text())
    results["results"]["tiny_read"]["exact_match,none"] = 0.25
    path.write_text(json.dumps(results))
    right = iter([1.0, 0.0, 0.0, 0.0])
    change_lines(samples(other), lambda line: line | {"exact_match": next(right)})
    report = report_of([(None, VANILLA), (None, INTERNVL), (None, other)], tmp_path / "out")
    text = report.markdown.read_text()
    # Scores of 75 and 25: 50, and 50 / sqrt(2). Retentions of 350 / 3 and 200 / 3, the baseline's mean being 50.
    assert "| vico-tiny-base-HF (internvl\\_hf) | 50.0 | 0.0 | 100.0 | 100.0% |" in text
    assert "over its runs, in points: Read 35.4, Count 0.0, Colour 0.0; retention 23.6." in text
    spreads = {line["benchmark"]: line for line in lines_of(report.csv) if line["metric"] == "score_spread_over_runs"}
    assert float(spreads["Read"]["value"]) == pytest.approx(50 / 2**0.5)
    assert {line["row"] for line in spreads.values()} == {TITLE}


def test_runs_of_one_row_must_be_of_one_checkpoint_and_one_kind(tmp_path):
    other = copy(INTERNVL, tmp_path / "other")
    (path,) = other.rglob("*_results.json")
    text = path.read_text()
    # Of two folders of one name, nobody knows that they hold the same weights.
    changes = (
        ("max_patches=12", "max_patches=6", "max_patches 12 and 6"),
        ("pretrained=checkpoints/", "pretrained=others/", "checkpoint checkpoints/.* and others/"),
    )
    for ours, theirs, difference in changes:
        path.write_text(text.replace(ours, theirs))
        with pytest.raises(ReportError, match=f"both given as `HF`, but differ in {difference}"):
            report_of([(None, VANILLA), ("HF", INTERNVL), ("HF", other)], tmp_path / "out")
    with pytest.raises(ReportError, match="runs of two systems, vanilla and internvl_hf"):
        report_of([("HF", VANILLA), ("HF", INTERNVL)], tmp_path / "out")


def test_vlmevalkits_own_spreadsheets_are_read(tmp_path):
    run = read_run(VLMEVALKIT)
    assert (run.record.title, run.record.harness) == ("always", "VLMEvalKit")
    assert run.record.made_from == "always/status.json"
    assert run.record.command[:3] == ("vlmeval", "--model", "always")
    # It always says yes and 1.
    pope = run.tasks["POPE"].documents
    assert {document.answer for document in pope} == {"Yes"}
    assert [document.fields["score"] for document in pope] == [float(document.target == "Yes") for document in pope]
    assert {document.account for document in pope} == {None}
    report = write_report(
        [(None, VLMEVALKIT)], table="vico-1", out=tmp_path, baseline="always", benchmarks=["POPE", "ChartQA"]
    )
    # 7 of 12 are to be yes, so F1 is 14 / 19; 4 of 6 are 1.
    assert "| always | 66.7 | 73.7 | 100.0% |" in report.markdown.read_text()
    assert any(note.startswith("always: started by VLMEvalKit itself") for note in report.table.notes)


def test_tables_as_tsv_are_the_same_and_a_failure_has_no_score(tmp_path):
    folder = copy(VLMEVALKIT, tmp_path / "run")
    for path in list(folder.rglob("*.xlsx")):
        table = pd.read_excel(path, dtype=str, keep_default_na=False)
        if path.stem == "always_POPE":
            table.loc[2, "prediction"] = "Failed to obtain answer via API."
        table.to_csv(path.with_suffix(".tsv"), sep="\t", index=False)
        path.unlink()
    (status,) = folder.rglob("status.json")
    status.write_text(status.read_text().replace(".xlsx", ".tsv"))
    tasks = read_run(folder).tasks
    assert tasks["ChartQA_TEST"].documents == read_run(VLMEVALKIT).tasks["ChartQA_TEST"].documents
    assert [document.answer for document in tasks["POPE"].documents] == ["Yes", "Yes", None, *["Yes"] * 9]
    assert tasks["POPE"].documents[2].failure == "VLMEvalKit wrote `Failed to obtain answer` and scored it"


def test_a_data_set_that_vlmevalkit_did_not_score_is_left_out_and_named(tmp_path):
    folder = copy(VLMEVALKIT, tmp_path / "run")
    (path,) = folder.rglob("status.json")
    status = json.loads(path.read_text())
    status["datasets"]["POPE"] |= {"error_message": "out of memory"}
    path.write_text(json.dumps(status))
    run = read_run(folder)
    assert list(run.tasks) == ["ChartQA_TEST"]
    assert "no score of POPE" in run.notes[1]
    del status["datasets"]["ChartQA_TEST"]
    path.write_text(json.dumps(status))
    with pytest.raises(ReportError, match=r"no score of POPE in .*: out of memory"):
        read_run(folder)


def test_the_command_line_names_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert titled_run("runs/a") == (None, Path("runs/a"))
    assert titled_run("InternVL, r = 1=runs/a") == ("InternVL, r = 1", Path("runs/a"))
    (tmp_path / "seed=1").mkdir()
    assert titled_run("seed=1") == (None, Path("seed=1"))


def test_a_model_without_a_checkpoint_is_named_by_itself(tmp_path):
    folder = copy(DATA / "lmms_eval_0_7_3", tmp_path / "run")
    (folder / "record.json").unlink()
    (path,) = folder.rglob("*_results.json")
    results = json.loads(path.read_text())
    results["config"]["model_args"] = ""
    results["model_name"] = ""
    path.write_text(json.dumps(results))
    assert read_run(folder).record.title == "dummy"


def test_rows_are_asked_the_same(tmp_path):
    """Few-shot examples, generation settings and other words make other numbers."""
    folder = copy(INTERNVL, tmp_path / "run")
    (path,) = folder.rglob("*_results.json")
    text = path.read_text()
    for key, value in (("num_fewshot", 2), ("generation_kwargs", {"max_new_tokens": 512})):
        results = json.loads(text)
        results["configs"]["tiny_read"][key] = value
        path.write_text(json.dumps(results))
        with pytest.raises(ReportError, match=rf"tiny_read: .* were run with another {key} \("):
            report_of([(None, VANILLA), (None, folder)], tmp_path / "out")
    path.write_text(text)
    change_lines(samples(folder), lambda line: line | {"input": line["input"] + " Say a number."})
    with pytest.raises(
        ReportError, match=r"tiny_read: .* have different questions in 4 of 4 documents\. Rows of one table"
    ):
        report_of([(None, VANILLA), (None, folder)], tmp_path / "out")
    results = json.loads(text)
    results["versions"]["tiny_read"] = 2.0
    path.write_text(json.dumps(results))
    with pytest.raises(ReportError, match=r"ran different versions of the task \(1.0 and 2.0\)"):
        report_of([(None, VANILLA), (None, folder)], tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ({"thinking": True}, ""),
        ({"thinking": False}, "counts as missing, because it was run with thinking=False; expected thinking=True."),
        ({}, "MMMU of mmmu may not have been run with thinking=True, since the run doesn't record it."),
    ],
)
def test_a_column_needs_what_the_catalogue_starts_the_model_with(tmp_path, settings, outcome):
    line = {name: value for name, value in sample(0, 1.0).items() if name != "exact_match"}
    runs = []
    for task, metric in (("mmmu_val", "mmmu_acc"), ("textvqa_val", "exact_match")):
        metrics = {task: {f"{metric},none": 1.0}}
        record = {"settings": settings, "system": "vanilla", "title": "Vanilla"}
        runs.append(
            (None, write_run(tmp_path / task.split("_")[0], {task: [line | {metric: 1.0}]}, metrics=metrics, **record))
        )
    report = write_report(runs, table="vico-1", out=tmp_path / "out", benchmarks=["TextVQA", "MMMU"])
    row = report.markdown.read_text().splitlines()[4]
    assert row.startswith("| Vanilla | 100.0 | – |" if "missing" in outcome else "| Vanilla | 100.0 | 100.0 |")
    assert any(outcome and outcome in note for note in report.table.notes) == bool(outcome)
    assert any("thinking" in note for note in report.table.notes) == bool(outcome)
