"""Folders that are no run, or more than one, or broken: each is refused with what happened and what to give or do."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from vico_eval.errors import ReportError
from vico_eval.runs.read import read_run

DATA = Path(__file__).parent / "data"
INTERNVL = DATA / "lmms_eval_internvl_hf"
VANILLA = DATA / "vico_eval_vanilla"
VLMEVALKIT = DATA / "ms_vlmeval_0_0_20"
MODEL = "checkpoints__vico-tiny-base-HF"
DATE = "20261122_045633"


def error_of(folder):
    with pytest.raises(ReportError) as caught:
        read_run(folder)
    return str(caught.value)


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(INTERNVL, tmp_path / "run"))


@pytest.fixture
def vlmevalkit(tmp_path):
    return Path(shutil.copytree(VLMEVALKIT, tmp_path / "run"))


def results(folder):
    return folder / MODEL / f"{DATE}_results.json"


def samples(folder):
    return folder / MODEL / f"{DATE}_samples_tiny_read.jsonl"


def second_results(folder, **config):
    """Another results file of the folder, of a later run with another `config`."""
    content = json.loads(results(folder).read_text())
    content["config"] |= config
    for task in ("tiny_read", "tiny_count", "tiny_colour"):
        name = f"_samples_{task}.jsonl"
        shutil.copy(folder / MODEL / f"{DATE}{name}", folder / MODEL / f"20261123_000000{name}")
    (folder / MODEL / "20261123_000000_results.json").write_text(json.dumps(content))


def test_a_parent_of_runs_names_those_to_give(tmp_path):
    for name in ("one", "two"):
        shutil.copytree(VANILLA, tmp_path / "runs" / name)
    message = error_of(tmp_path / "runs")
    assert "holds 2 runs, which would be mixed in one row" in message
    assert f"Give each run's own folder: {tmp_path / 'runs/one'}, {tmp_path / 'runs/two'}." in message


def test_a_parent_of_one_run_names_it(tmp_path):
    shutil.copytree(VANILLA, tmp_path / "runs" / "one")
    assert f"Give {tmp_path / 'runs/one'}." in error_of(tmp_path / "runs")


def test_two_models_in_one_folder_are_named(run):
    shutil.copytree(run / MODEL, run / "other__model")
    assert f"Give each run's own folder: {run / MODEL}, {run / 'other__model'}." in error_of(run)
    assert read_run(run / MODEL).record.system == "internvl_hf"


def test_two_models_under_one_record_are_refused(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(VANILLA, folder)
    shutil.copytree(INTERNVL / MODEL, folder / MODEL)
    assert "has one record.json, but results in several folders" in error_of(folder)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model": "internvl2"}, "model"),
        ({"model_args": "pretrained=checkpoints/vico-tiny-base-HF,max_patches=6"}, "model_args"),
        ({"limit": 2.0}, "limit"),
        ({"offset": 4}, "offset"),
        ({"gen_kwargs": "temperature=1"}, "gen_kwargs"),
        ({"resolved_cli_args": {"num_fewshot": 2}}, "num_fewshot"),
    ],
)
def test_results_of_other_settings_in_one_folder_are_refused(run, config, named):
    second_results(run, **config)
    message = error_of(run)
    assert f"differ in {named}. Give each run its own --output_path" in message


def test_the_same_settings_again_are_the_newer_run(run):
    second_results(run)
    assert read_run(run).tasks["tiny_read"].results_path.name == "20261123_000000_results.json"


def damage_results(run):
    text = results(run).read_text()
    results(run).write_text(text[: len(text) // 2])


def damage_samples(run):
    samples(run).write_text(samples(run).read_text()[:-20])


def lose_a_document(run):
    samples(run).write_text("".join(samples(run).read_text().splitlines(True)[:-1]))


def add_a_document(run):
    line = json.loads(samples(run).read_text().splitlines()[0]) | {"doc_id": 4}
    samples(run).write_text(samples(run).read_text() + json.dumps(line) + "\n")


def repeat_a_document(run):
    samples(run).write_text(samples(run).read_text() + samples(run).read_text().splitlines()[0])


def put_bytes(run):
    samples(run).write_bytes(b"\xff\xfe\x00")


def take_samples_away(run):
    samples(run).unlink()


def take_samples_of_another_run(run):
    samples(run).rename(samples(run).with_name("20261121_000000_samples_tiny_read.jsonl"))


def abort(run):
    content = json.loads(results(run).read_text()) | {"results": {}, "n-samples": {}}
    results(run).write_text(json.dumps(content))


def strip(run):
    content = json.loads(results(run).read_text())
    del content["n-samples"]
    results(run).write_text(json.dumps(content))


def lose_results(run):
    results(run).unlink()


def add_a_record_of_another_version(run):
    record = json.loads((VANILLA / "record.json").read_text()) | {"version": 3}
    (run / "record.json").write_text(json.dumps(record))


def add_a_record_with_gaps(run):
    record = json.loads((VANILLA / "record.json").read_text()) | {"dtype": None}
    (run / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_results, f"{DATE}_results.json is not valid JSON"),
        (damage_samples, "samples_tiny_read.jsonl, line 4 is not valid JSON"),
        (lose_a_document, "tiny_read (4 documents expected): document 3 not in the samples file"),
        (add_a_document, "tiny_read (4 documents expected): document 4 not expected"),
        (repeat_a_document, "is the second line of document 0; expected one per document. Two runs wrote to the file"),
        (put_bytes, "can't be read"),
        (take_samples_away, "which its aggregated number doesn't show. Run lmms-eval with --log_samples."),
        (take_samples_of_another_run, "20261121_000000_samples_tiny_read.jsonl is there, of another run."),
        (abort, "lists no task under `n-samples`; nothing was evaluated."),
        (strip, "has no object `n-samples`; expected a results file of lmms-eval"),
        (lose_results, "has neither a results file of lmms-eval (<date>_results.json) nor a status.json"),
        (
            add_a_record_of_another_version,
            "has version 3; expected 1 or 2. Another release of vico-eval wrote it",
        ),
        (add_a_record_with_gaps, "dtype must not be null"),
    ],
)
def test_what_is_broken_is_said(run, damage, message):
    damage(run)
    assert message in error_of(run)


def test_an_empty_folder_and_a_file_are_no_runs(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty is empty. Expected a finished run of lmms-eval or VLMEvalKit." in error_of(tmp_path / "empty")
    message = error_of(results(run))
    assert "is not a folder. Expected a run's folder: lmms-eval's --output_path" in message
    assert message.endswith(f"Give {results(run).parent}.")
    log = tmp_path / "vanilla.log"
    log.write_text("")
    assert error_of(log).endswith("Leave it out.")


def test_results_of_both_toolkits_are_refused(run):
    for path in (VLMEVALKIT / "always").iterdir():
        shutil.copy(path, run / MODEL)
    assert "holds results of lmms-eval (20261122_045633_results.json) and of VLMEvalKit (status.json)" in error_of(run)


def test_two_runs_of_vlmevalkit_are_named(vlmevalkit):
    shutil.copytree(vlmevalkit / "always", vlmevalkit / "never")
    assert f"run's own folder: {vlmevalkit / 'always'}, {vlmevalkit / 'never'}." in error_of(vlmevalkit)
    assert read_run(vlmevalkit / "always").record.title == "always"


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def repeat_a_row(path):
    table = pd.read_excel(path, dtype=str)
    pd.concat([table, table.head(1)]).to_excel(path, index=False)


def take_rows_away(path):
    pd.read_excel(path, dtype=str).head(3).to_excel(path, index=False)


def empty(path):
    pd.read_excel(path, dtype=str).head(0).to_excel(path, index=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "always_POPE.xlsx can't be read"),
        (repeat_a_row, "has more than one row of document 0; expected one"),
        (take_rows_away, "has scores of documents that always_POPE.xlsx has no answers to: 10, 11, 3"),
        (empty, "has no documents"),
        (Path.unlink, "always_POPE.xlsx can't be read"),
    ],
)
def test_a_broken_table_of_vlmevalkit_is_refused(vlmevalkit, damage, message):
    damage(vlmevalkit / "always" / "always_POPE.xlsx")
    assert message in error_of(vlmevalkit)


def test_a_table_that_was_cut_off_is_refused(vlmevalkit):
    (status,) = vlmevalkit.rglob("status.json")
    status.write_text(status.read_text().replace("always_POPE.xlsx", "always_POPE.tsv"))
    table = "index\tquestion\tanswer\tprediction\n0\tWhy?\tYes\tYes\n1\tWhy?"
    (vlmevalkit / "always" / "always_POPE.tsv").write_text(table)
    assert "always_POPE.tsv is truncated inside its last row" in error_of(vlmevalkit)


def test_a_format_that_is_not_read_says_the_way_out(vlmevalkit):
    (status,) = vlmevalkit.rglob("status.json")
    status.write_text(status.read_text().replace("always_POPE.xlsx", "always_POPE.json"))
    assert "only .tsv and .xlsx; repeat VLMEvalKit's command with PRED_FORMAT=tsv" in error_of(vlmevalkit)
