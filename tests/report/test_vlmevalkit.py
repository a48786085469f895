"""Run folders of VLMEvalKit, written by hand; those that it writes itself are read in tests/vlmeval."""

import json

import pandas as pd
import pytest

from vico_eval.errors import ReportError
from vico_eval.report import write_report
from vico_eval.report.scores.benchmarks import as_column
from vico_eval.report.scores.vlmevalkit import document_scores
from vico_eval.runs.read import read_run
from vico_eval.score_rules import VLMEvalKit
from vico_eval.suites import load_benchmarks

from .conftest import RECORD, account, sample, write_run

SETTINGS = {"generation": {"max_new_tokens": 4096}, "judge": "exact_matching", "limit": None}


def write_vlmevalkit_run(
    folder, *, predictions=("A", "None", "B"), hits=("1", "0", "1"), metrics=None, record=None, **status
):
    """A run of MMStar with three documents; two are right."""
    model = folder / "vico"
    model.mkdir(parents=True)
    record = {**RECORD, "harness": "VLMEvalKit", "settings": SETTINGS, **(record or {})}
    (folder / "record.json").write_text(json.dumps(record))
    metrics = {"split=val|Overall": 2 / 3, "split=val|math": 0.5} if metrics is None else metrics
    entry = {"status": "done", "judge_model": "exact_matching", "metrics": metrics, **status}
    (model / "status.json").write_text(json.dumps({"datasets": {"MMStar": entry}}))
    table = pd.DataFrame({"index": range(len(predictions)), "prediction": predictions})
    table.to_csv(model / "vico_MMStar.tsv", sep="\t", index=False)
    table.assign(hit=hits).to_csv(model / "vico_MMStar_exact_matching_result.tsv", sep="\t", index=False)
    lines = [
        {"task": "MMStar", "split": "val", "doc_id": number, "repeat": 0, "asked": "ab", "text": text}
        | {"account": account()}
        for number, text in enumerate(predictions)
    ]
    (folder / "answers.rank0.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def column(name):
    return as_column(load_benchmarks()[name]).of("VLMEvalKit")


def rule(metric, split=None):
    return VLMEvalKit(dataset="MMStar", metrics=(metric,), full=1, split=split)


def test_a_benchmark_of_the_catalogue_has_its_score_from_vlmevalkit(tmp_path):
    task = read_run(write_vlmevalkit_run(tmp_path / "run")).tasks["MMStar"]
    assert column("mmstar").tasks == ("MMStar",)
    assert column("mmstar").rule.score([task]) == pytest.approx(100 * 2 / 3)
    # "None" is what the model said, not a missing cell.
    assert [document.fields["prediction"] for document in task.documents] == ["A", "None", "B"]


def test_documents_have_scores_where_their_mean_is_the_metric(tmp_path):
    task = read_run(write_vlmevalkit_run(tmp_path / "run")).tasks["MMStar"]
    scores = document_scores(rule("Overall"), task)
    assert scores is not None
    assert list(scores.values) == [100, 0, 100]
    assert document_scores(rule("math"), task) is None


def test_mme_is_a_sum(tmp_path):
    run = read_run(write_vlmevalkit_run(tmp_path / "run", metrics={"perception": 1600.0, "reasoning": 640.0}))
    assert column("mme").rule.score([run.tasks["MMStar"]]) == pytest.approx((1600 + 640) / 28)


def test_a_split_is_asked_for_where_there_are_several(tmp_path):
    metrics = {"split=dev|Overall": 0.5, "split=validation|Overall": 0.6}
    tasks = [read_run(write_vlmevalkit_run(tmp_path / "run", metrics=metrics)).tasks["MMStar"]]
    assert rule("Overall", split="validation").score(tasks) == pytest.approx(60)
    with pytest.raises(ReportError, match="several 'Overall'"):
        rule("Overall").score(tasks)
    with pytest.raises(ReportError, match="no 'Overall' of split 'test'"):
        rule("Overall", split="test").score(tasks)


def test_an_error_that_vlmevalkit_went_on_after_is_one(tmp_path):
    folder = write_vlmevalkit_run(tmp_path / "run", error_message="out of memory")
    with pytest.raises(ReportError, match=r"no score of MMStar in .*: out of memory"):
        read_run(folder)


def test_a_failure_that_vlmevalkit_scored_as_an_answer_is_refused(tmp_path):
    folder = write_vlmevalkit_run(tmp_path / "run", predictions=("A", "Failed to obtain answer via API.", "B"))
    with pytest.raises(ReportError, match="without an answer of this run: 1"):
        read_run(folder)


def test_a_prediction_that_is_not_ours_is_refused(tmp_path):
    folder = write_vlmevalkit_run(tmp_path / "run")
    lines = (folder / "answers.rank0.jsonl").read_text().splitlines(keepends=True)
    (folder / "answers.rank0.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(ReportError, match="without an answer of this run: 2"):
        read_run(folder)


def test_rows_of_a_column_are_of_one_toolkit(tmp_path):
    one = write_vlmevalkit_run(tmp_path / "one", record={"title": "Vanilla", "system": "vanilla"})
    line = sample(0, {"score": 1.0}, metric="average")
    other = write_run(tmp_path / "other", {"mmstar": [line]}, metrics={"mmstar": {"average,none": 1.0}})
    with pytest.raises(ReportError, match=r"MMStar was run by VLMEvalKit \(Vanilla\) and by lmms-eval \(ViCO\)"):
        write_report([(None, one), (None, other)], table="vico-1", out=tmp_path / "out")


def test_a_limited_run_says_so(tmp_path):
    settings = {**SETTINGS, "limit": 3}
    record = {"title": "Vanilla", "system": "vanilla", "settings": settings}
    run = write_vlmevalkit_run(tmp_path / "run", record=record)
    report = write_report([(None, run)], table="vico-1", out=tmp_path / "out")
    assert any("only the first 3 documents of each data set" in note for note in report.table.notes)
    assert json.loads(report.provenance.read_text())["runs"][0]["record"]["harness"] == "VLMEvalKit"
