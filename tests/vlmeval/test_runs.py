"""`vico-eval vlmeval run`: scores, accounts, what a stopped run leaves, and what is refused."""

import json
import shutil

import pandas as pd
import pytest

from vico_eval.report import write_report
from vico_eval.runs.read import read_run

from .conftest import documents


def table(path):
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def predictions(folder, task):
    rows = table(folder / "vico" / f"vico_{task}.tsv")
    return dict(zip(rows["index"], rows["prediction"], strict=True))


def answers(folder):
    lines = (folder / "answers.rank0.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def write_answers(folder, lines):
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "answers.rank0.jsonl").write_text(text, encoding="utf-8")


def test_scores_are_those_counted_by_hand(finished):
    run = read_run(finished)
    told = {(document.task, str(document.index)): document.answer for document in documents()}

    said = predictions(finished, "ChartQA_TEST")
    right = [said[index] == told["ChartQA_TEST", index] for index in said]
    assert run.tasks["ChartQA_TEST"].metrics["Overall"] == pytest.approx(100 * sum(right) / 6)
    assert sum(right) > 0

    # F1 of yes: twice the right yes over those said and those meant.
    said = {index: text.lower() == "yes" for index, text in predictions(finished, "POPE").items()}
    meant = {index: told["POPE", index] == "yes" for index in said}
    both = sum(said[index] and meant[index] for index in said)
    overall = run.tasks["POPE"].metrics["split=Overall|Overall"]
    assert overall == pytest.approx(100 * 2 * both / (sum(said.values()) + sum(meant.values())))
    assert both > 0

    letter = {"right": "A", "left": "B", "1": "C", "yes": "D"}
    right = [
        letter.get(text.lower()) == "CACB"[int(index)] for index, text in predictions(finished, "tiny_choice").items()
    ]
    assert run.tasks["tiny_choice"].metrics["split=none|Overall"] == pytest.approx(sum(right) / 4)
    assert sum(right) > 0


def test_every_document_has_an_account_and_the_record_names_the_toolkit(finished):
    run = read_run(finished)
    assert (run.record.harness, run.record.title) == ("VLMEvalKit", "ViCO")
    assert run.record.versions["ms_vlmeval"]
    assert "lmms_eval" not in run.record.versions
    assert {"POPE", "ChartQA_TEST"} <= run.record.scorers.keys()
    assert len(set(run.record.scorers.values())) == len(run.record.scorers)  # each has its own scorer
    assert {name: len(task.documents) for name, task in run.tasks.items()} == {
        "POPE": 12,
        "ChartQA_TEST": 6,
        "tiny_choice": 4,
    }
    accounts = [document.account[0] for task in run.tasks.values() for document in task.documents]
    assert {account.generated_tokens > 0 for account in accounts} == {True}
    assert {account.compressed_tiles < account.tiles for account in accounts} == {True, False}
    assert len(answers(finished)) == 22
    assert run.record.previews == "previews"
    named = {
        finished / "previews" / account.media[:2] / f"{account.media}-{number}.jpg"
        for account in accounts
        for number in range(len(account.grids))
    }
    assert named == set((finished / "previews").rglob("*.jpg"))


def test_pictures_are_left_out_or_go_elsewhere(evaluate, tmp_path):
    for value, expected in (("false", None), (tmp_path / "shared", "../shared")):
        folder = tmp_path / f"run-{value}".replace("/", "-")
        options = ("--limit", "1", "--model-args", f"device=cpu,previews={value}")
        assert evaluate(folder, *options, names="ChartQA_TEST", method="vanilla") == 0
        assert read_run(folder).record.previews == expected
        assert len(list(tmp_path.rglob("*.jpg"))) == (expected is not None)


def test_documents_have_the_scores_that_vlmevalkit_gave_them(finished):
    tasks = read_run(finished).tasks
    scores = {name: [document.fields["score"] for document in task.documents] for name, task in tasks.items()}
    said = predictions(finished, "POPE")
    told = {str(document.index): document.answer for document in documents() if document.task == "POPE"}
    assert scores["POPE"] == [float(said[index].lower() == told[index]) for index in said]
    assert sum(scores["ChartQA_TEST"]) / 6 == pytest.approx(tasks["ChartQA_TEST"].metrics["Overall"] / 100)
    assert sum(scores["tiny_choice"]) / 4 == pytest.approx(tasks["tiny_choice"].metrics["split=none|Overall"])


def test_what_was_answered_is_not_asked_again(finished, evaluate, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = predictions(folder, "POPE")
    (folder / "vico" / "vico_POPE.tsv").unlink()
    write_answers(folder, [line for line in answers(folder) if (line["task"], line["doc_id"]) != ("POPE", 11)])
    assert evaluate(folder) == 0
    assert predictions(folder, "POPE") == before
    assert len(answers(folder)) == 22
    assert answers(folder)[-1]["doc_id"] == 11


def test_vlmevalkit_goes_on_from_its_own_predictions(finished, evaluate, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = predictions(folder, "POPE")
    path = folder / "vico" / "vico_POPE.tsv"
    table(path).iloc[:-3].to_csv(path, sep="\t", index=False)
    write_answers(folder, [line for line in answers(folder) if line["task"] != "POPE" or line["doc_id"] < 9])
    asked = len(answers(folder))
    assert evaluate(folder) == 0
    assert predictions(folder, "POPE") == before
    assert len(answers(folder)) == asked + 3


def test_a_document_that_fails_is_named_and_nothing_is_scored(evaluate, data, tmp_path, capsys):
    long = table(data / "POPE.tsv").head(3)
    long.loc[1, "question"] = "why? " * 5000
    long.to_csv(data / "POPE.tsv.kept", sep="\t", index=False)
    (data / "POPE.tsv").rename(data / "POPE.whole")
    (data / "POPE.tsv.kept").rename(data / "POPE.tsv")
    try:
        assert evaluate(tmp_path, names="POPE") == 1
    finally:
        (data / "POPE.whole").replace(data / "POPE.tsv")
    assert "document POPE/none/1 failed twice" in capsys.readouterr().err
    assert not (tmp_path / "vico" / "vico_POPE.tsv").exists()
    assert [line["doc_id"] for line in answers(tmp_path)] == [0]
    assert evaluate(tmp_path, names="POPE") == 0
    assert [line["doc_id"] for line in answers(tmp_path)] == list(range(12))


def test_a_data_set_that_vlmevalkit_does_not_have_is_an_error(evaluate, tmp_path, capsys):
    assert evaluate(tmp_path, names="no_such_set") == 1
    assert "no score of no_such_set" in capsys.readouterr().err


def test_another_run_in_the_same_folder_is_refused(finished, evaluate, capsys):
    assert evaluate(finished, method="single_tile") == 1
    assert "holds a run with another checkpoint, method" in capsys.readouterr().err


def test_the_number_of_documents_can_be_limited(evaluate, tmp_path):
    assert evaluate(tmp_path, "--limit", "2", names="ChartQA_TEST") == 0
    run = read_run(tmp_path)
    assert [document.doc_id for document in run.tasks["ChartQA_TEST"].documents] == [100, 101]
    assert run.record.settings["limit"] == 2


def test_runs_become_a_table(finished, evaluate, tmp_path):
    assert evaluate(tmp_path / "vanilla", names="POPE,ChartQA_TEST", method="vanilla") == 0
    report = write_report([(None, tmp_path / "vanilla"), (None, finished)], table="vico-1", out=tmp_path / "out")
    run = read_run(finished)
    cells = {(cell["row"], cell["benchmark"]): cell for cell in json.loads(report.provenance.read_text())["cells"]}
    assert {benchmark for _, benchmark in cells} == {"POPE", "ChartQA"}
    assert cells["ViCO", "POPE"]["score"] == pytest.approx(run.tasks["POPE"].metrics["split=Overall|Overall"])
    assert cells["ViCO", "ChartQA"]["source"] == "VLMEvalKit: Overall x 1"
    assert cells["ViCO", "POPE"]["visual_tokens"] < cells["Vanilla", "POPE"]["visual_tokens"]


def test_answers_to_a_table_that_has_changed_are_not_taken_over(finished, evaluate, data, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    whole = (data / "POPE.tsv").read_bytes()
    try:
        changed = table(data / "POPE.tsv")
        changed.loc[0, "question"] = "Is there a moon?"
        changed.to_csv(data / "POPE.tsv", sep="\t", index=False)
        assert evaluate(folder, names="POPE") == 1
        assert "the data of POPE have changed since" in capsys.readouterr().err
        for path in sorted((folder / "vico").rglob("*_POPE*"), reverse=True):
            path.unlink()
        assert evaluate(folder, names="POPE") == 0
    finally:
        (data / "POPE.tsv").write_bytes(whole)
    assert len((folder / "answers.rank0.jsonl.stale").read_text().splitlines()) == 1
    assert len(answers(folder)) == 22
