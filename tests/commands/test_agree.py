"""`vico-eval agree`: which runs are compared, what is printed and written, and when it fails."""

import json
import shutil
from pathlib import Path

import pytest

from vico_eval.paths import tasks_dir

VANILLA = Path(__file__).parents[1] / "report" / "data" / "vico_eval_vanilla"


def change_answers(folder, old, new, task="tiny_read"):
    """As if the model had said something else, once."""
    for path in (folder / "answers.rank0.jsonl", next(folder.rglob(f"*_samples_{task}.jsonl"))):
        name = "text" if path.name.startswith("answers") else "filtered_resps"
        text = path.read_text()
        assert f'"{name}": "{old}"' in text
        path.write_text(text.replace(f'"{name}": "{old}"', f'"{name}": "{new}"', 1))


@pytest.fixture
def runs(tmp_path):
    """Two runs that lmms-eval and this package wrote, with the same answers; tests may change the second."""
    places = [tmp_path / name / "vanilla" for name in ("one", "two")]
    return [Path(shutil.copytree(VANILLA, place)) for place in places]


def first_answer(folder, task="tiny_read"):
    lines = [json.loads(line) for line in (folder / "answers.rank0.jsonl").read_text().splitlines()]
    return next(line["text"] for line in lines if line["task"] == task)


def test_equal_runs_are_told_and_nothing_is_written_unasked(run, runs, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run("agree", *runs, "--require-equal")
    assert (status, err) == (0, "")
    assert "100.0%" in out
    assert "12 of 12" in out
    assert f"Second: {runs[1]}" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_other_answers_are_shown_and_fail_only_if_they_must_not(run, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])  # where the record's checkpoint is
    old = first_answer(runs[1])
    change_answers(runs[1], old, f"{old} \\ud83d")
    status, out, err = run("agree", *runs, "--out", tmp_path / "out")
    assert status == 0
    assert "91.7%" in out
    assert "after token" in out
    assert str(tmp_path / "out" / "agreement.md") in err
    status, again, err = run("agree", *runs, "--require-equal", "--examples", "0")
    assert status == 1
    assert "The runs are not equal." in err
    assert "1 documents with other answers" in err
    assert "91.7%" in again
    assert "after token" not in again


def test_as_json_it_is_what_the_file_holds(run, runs, tmp_path, monkeypatch):
    change_answers(runs[1], first_answer(runs[1]), "another")
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("agree", *runs, "--json", "--out", tmp_path, "--require-equal")
    assert status == 1
    assert json.loads(out) == json.loads((tmp_path / "agreement.json").read_text())
    assert json.loads(out)[0]["total"]["same_answers"] == 11


def test_runs_of_two_folders_are_paired_by_their_names(run, runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "one" / "alone")
    change_answers(runs[1], first_answer(runs[1]), "no")
    status, out, err = run("agree", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "out")
    assert status == 0
    assert "91.7%" in out
    assert f"{tmp_path / 'one' / 'alone'} has no counterpart" in err
    (record,) = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert (record["run"], record["total"]["same_answers"]) == ("vanilla", 11)
    assert run("agree", tmp_path / "one", tmp_path / "two", "--require-equal")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one/vanilla", "one/vanilla"), "was given twice"),
        (("one", "one"), "was given twice"),
        (("one/vanilla", "missing"), "missing is not a folder. Expected a run"),
        (("one/vanilla", "two"), "is one run and"),
        (("one/vanilla", "empty"), "empty is empty"),
        (("one", "other"), "have no name in common"),
        (("one", "unfinished"), "has no results file"),
    ],
)
def test_what_is_no_pair_of_runs_is_an_error(run, runs, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    shutil.copytree(runs[0], tmp_path / "other" / "vico")
    unfinished = Path(shutil.copytree(runs[0], tmp_path / "unfinished" / "vanilla"))
    next(unfinished.rglob("*_results.json")).unlink()
    status, out, err = run("agree", *(tmp_path / argument for argument in arguments))
    assert (status, out) == (1, "")
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_an_error(run, runs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, err = run("agree", *runs, "--out", tmp_path / "file" / "out")
    assert status == 1
    assert "Nothing can be written to" in err


@pytest.fixture
def answer_in_batches(tmp_path):
    """Has the built-in model answer a few documents through lmms-eval, so many at once: the run's folder."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.loggers import EvaluationTracker
    from lmms_eval.tasks import TaskManager

    def answer(batch_size):
        folder = tmp_path / f"in-batches-of-{batch_size}"
        tracker = EvaluationTracker(output_path=str(folder))
        results = simple_evaluate(
            model="vico_internvl",
            model_args=f"pretrained=vico-tiny,device=cpu,record_dir={folder}",
            tasks=["tiny_read", "tiny_compare"],
            task_manager=TaskManager(include_path=str(tasks_dir()), include_defaults=False),
            limit=6,
            batch_size=batch_size,
            log_samples=True,
            evaluation_tracker=tracker,
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples, datetime_str="20261201_120000")
        for task, lines in samples.items():
            tracker.save_results_samples(task_name=task, samples=lines)
        return folder

    return answer


def test_two_real_runs_of_one_model_agree_whatever_their_batches(run, answer_in_batches, tmp_path):
    runs = [answer_in_batches(batch_size) for batch_size in (1, 6)]
    status, out, _ = run("agree", *runs, "--require-equal", "--out", tmp_path / "out")
    assert status == 0
    assert "settings.batch_size: 1 | 6" in out
    (record,) = json.loads((tmp_path / "out" / "agreement.json").read_text())
    total = record["total"]
    assert total["same_answers"] == total["documents"] == total["with_accounts"] == 12
    # The router's scores may differ in their last digit in other batches, and no count may.
    assert set(total["different_counts"]) <= {"p_compress"}
    assert {one["name"] for one in record["different_conditions"]} == {"settings.batch_size"}
    lines = [json.loads(line) for line in (runs[0] / "answers.rank0.jsonl").read_text().splitlines()]
    assert {line["account"]["finish"] for line in lines} == {"stop"}
