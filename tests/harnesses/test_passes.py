"""Rows that share a pass, through lmms-eval's own `--config`: results are those of each row alone."""

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from vico_eval.errors import ConfigError
from vico_eval.harnesses.lmms_eval.passes import read_pass
from vico_eval.paths import tasks_dir
from vico_eval.runs.read import read_record, read_run

SOME_TASKS = Path(__file__).parents[1] / "some_tasks.py"
PROGRAM = "vico_eval.harnesses.lmms_eval.run_pass"
TASKS = ("tiny_read", "tiny_compare", "tiny_video")
LIMIT = 6
ROWS = {
    "vanilla": ("vanilla_internvl", ""),
    "half": ("divprune_internvl", "keep_ratio=0.5"),
    "fewer": ("downsample_internvl", ""),
    "routed": ("compressed_internvl", "method=vico+fastv,absolute_threshold=0.26,layer=1"),
}


def write_pass(folder: Path, checkpoint: Path, rows=ROWS, *, shared=True) -> Path:
    file = folder / "pass.yaml"
    entries = []
    for name, (model, own) in rows.items():
        run = folder / name
        arguments = [f"pretrained={checkpoint}", own, f"record_dir={run}", "resume=True", "keep_going=True"]
        arguments += [f"previews={folder / 'previews'}", f"shared_pass={file}"] if shared else ["previews=False"]
        entries.append(
            {
                "model": model,
                "model_args": ",".join(filter(None, arguments)),
                "include_path": str(tasks_dir()),
                "batch_size": "2",
                "log_samples": True,
                "output_path": str(run),
                "tasks": ",".join(TASKS),
                "limit": LIMIT,
                "device": "cpu",
            }
        )
    file.write_text(yaml.safe_dump(entries, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def start(start_loaded):
    """Starts the processes of a pass."""

    def programs(file: Path, log: Path, processes: int = 1):
        return start_loaded([SOME_TASKS, "", PROGRAM, "--config", file], log, processes, ACCELERATE_USE_CPU="true")

    return programs


@pytest.fixture(scope="module")
def evaluate(start):
    """Runs a pass to its end: what it says."""

    def run(file: Path, processes: int = 1, status: int = 0) -> str:
        log = file.with_suffix(".log")
        log.unlink(missing_ok=True)
        statuses = [program.wait(500) for program in start(file, log, processes)]
        assert statuses == [status] * processes, log.read_text()[-3000:]
        return log.read_text()

    return run


def samples(run: Path):
    """By task and document what lmms-eval wrote of the answer, its tokens and its scores."""
    found = {}
    for file in run.rglob("*_samples_*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            kept = {name: value for name, value in line.items() if name not in ("doc_hash", "input_media")}
            found[file.stem.split("_samples_")[1], line["doc_id"]] = kept
    return found


@pytest.fixture(scope="module")
def alone(untrained, tmp_path_factory, evaluate):
    """The rows one after the other, none of which knows of the others."""
    folder = tmp_path_factory.mktemp("alone")
    evaluate(write_pass(folder, untrained / "vico", shared=False))
    found = {name: samples(folder / name) for name in ROWS}
    assert {len(of_row) for of_row in found.values()} == {LIMIT * len(TASKS)}
    return found


def check_rows(folder: Path, alone):
    for name in ROWS:
        assert samples(folder / name) == alone[name], name
        run = read_run(folder / name)
        assert all(document.account is not None for task in run.tasks.values() for document in task.documents)


def test_rows_of_a_pass_have_the_results_of_rows_alone(untrained, evaluate, alone, tmp_path):
    log = evaluate(write_pass(tmp_path, untrained / "vico"))
    assert log.count("Loading weights: 100%") == 1
    check_rows(tmp_path, alone)
    for name, (model, own) in ROWS.items():
        record = read_record(tmp_path / name)
        assert (record.dtype, record.device, record.previews) == ("float32", "cpu", "../previews")
        assert len(record.continued) == (name != "vanilla")  # the others were scored from their journals
        assert record.answered_with == tuple(f"../{other}" for other in ROWS if other != name)
        words = record.command
        assert words[:3] == ("python", "-m", "lmms_eval")
        arguments = words[words.index("--model_args") + 1]
        assert words[words.index("--model") + 1] == model
        assert own in arguments
        assert f"record_dir={tmp_path / name}" in arguments
        assert "shared_pass" not in arguments
        assert "--log_samples" in words
        assert words[words.index("--limit") + 1] == str(LIMIT)
        lines = [json.loads(line) for line in (tmp_path / name / "answers.rank0.jsonl").read_text().splitlines()]
        assert all(line["seconds"]["rows"] > 0 for line in lines)
    assert {line["seconds"]["rows"] for line in lines} == {len(ROWS) - 1}  # the other tiling is one of its own


def test_the_command_in_the_record_repeats_the_row_alone(untrained, evaluate, start_loaded, alone, tmp_path):
    evaluate(write_pass(tmp_path, untrained / "vico", {name: ROWS[name] for name in ("vanilla", "half")}))
    run = tmp_path / "half"
    words = read_record(run).command
    assert words[:2] == ("python", "-m")
    (run / "answers.rank0.jsonl").unlink()
    (again,) = start_loaded([SOME_TASKS, "", *words[2:]], tmp_path / "again.log", ACCELERATE_USE_CPU="true")
    assert again.wait(300) == 0, (tmp_path / "again.log").read_text()
    assert samples(run) == alone["half"]


def test_a_pass_of_two_processes_gives_the_answers_of_one(untrained, evaluate, alone, tmp_path):
    evaluate(write_pass(tmp_path, untrained / "vico"), processes=2)
    for name in ROWS:
        assert len(list((tmp_path / name).glob("answers.rank*.jsonl"))) == 2
        found = samples(tmp_path / name)
        for key, line in alone[name].items():
            # Other documents share a batch, so scores may differ in their last digit.
            assert (found[key]["filtered_resps"], found[key]["exact_match"]) == (
                line["filtered_resps"],
                line["exact_match"],
            )
            ours, theirs = (one["token_counts"][0]["account"] for one in (found[key], line))
            assert {**ours, "p_compress": None} == {**theirs, "p_compress": None}


def test_a_pass_that_was_killed_goes_on(untrained, evaluate, start, alone, tmp_path):
    file = write_pass(tmp_path, untrained / "vico")
    (program,) = start(file, tmp_path / "killed.log")
    journals = [tmp_path / name / "answers.rank0.jsonl" for name in ROWS]
    deadline = time.monotonic() + 300
    while not (journals[-1].exists() and journals[-1].read_text().count("\n") >= 5):
        assert time.monotonic() < deadline
        assert program.poll() is None
        time.sleep(0.005)
    program.kill()
    assert program.wait(60) == -signal.SIGKILL
    assert not list(tmp_path.rglob("*_results.json"))
    kept = [journal.read_text().split("\n")[0] for journal in journals]
    evaluate(file)
    check_rows(tmp_path, alone)
    # What was answered before is still there, and nothing is there twice.
    for journal, first in zip(journals, kept, strict=True):
        lines = journal.read_text().splitlines()
        assert lines[0] == first
        assert len(lines) == LIMIT * len(TASKS)


def test_task_files_of_lmms_eval_are_read_only_where_a_row_asks_for_them(tmp_path, monkeypatch):
    from vico_eval.harnesses.lmms_eval import run_pass

    class Manager:
        """Knows a task of ours, a group of ours, and with its defaults lmms-eval's."""

        def __init__(self, verbosity, include_path, include_defaults=True):
            self.with_defaults = include_defaults
            self.task_index = {"ours": {"type": "task"}, "group": {"type": "group"}}
            self.task_index |= {"theirs": {"type": "task"}} if include_defaults else {}

    monkeypatch.setattr(run_pass, "TaskManager", Manager)
    rows = read_pass(write_pass(tmp_path, tmp_path))
    for tasks, with_defaults in (("ours", False), ("ours,theirs", True), ("group", True), ("nobody's", True)):
        asked = [row.model_copy(update={"tasks": tasks}) for row in rows]
        assert run_pass._task_manager(asked).with_defaults == with_defaults


def test_no_task_of_ours_has_the_name_of_one_of_lmms_eval_s():
    import re

    from lmms_eval.tasks import __file__ as packaged

    def named(folder):
        texts = (file.read_text(encoding="utf-8") for file in folder.rglob("*.yaml"))
        return {name for text in texts for name in re.findall(r"^(?:task|group|tag): *[\"']?([\w-]+)", text, re.M)}

    theirs = named(Path(packaged).parent)
    assert {"mme", "ocrbench"} <= theirs
    assert not theirs & named(tasks_dir())


def test_a_row_that_cannot_share_is_left_to_its_own_evaluation(untrained, evaluate, alone, tmp_path):
    rows = {
        "vanilla": ROWS["vanilla"],
        "small": ("vanilla_internvl", "max_tiles=1"),
        "wrong": ("divprune_internvl", "keep_ratio=7"),
        "half": ROWS["half"],
    }
    log = evaluate(write_pass(tmp_path, untrained / "vico", rows), status=1)
    assert "small is not answered in this pass" in log
    assert "they differ in max_tiles" in log
    assert "wrong is not answered in this pass" in log
    assert f"{tmp_path / 'wrong'} has no results: got keep_ratio=7" in log
    assert samples(tmp_path / "vanilla") == alone["vanilla"]
    assert samples(tmp_path / "half") == alone["half"]
    assert len(samples(tmp_path / "small")) == LIMIT * len(TASKS)
    assert read_record(tmp_path / "small").answered_with == ()
    assert not samples(tmp_path / "wrong")
    assert read_record(tmp_path / "vanilla").answered_with == ("../half",)


def test_a_row_whose_folder_goes_away_does_not_take_the_others_with_it(untrained, tmp_path, monkeypatch):
    from vico_eval.harnesses.lmms_eval import rows

    class Engine:
        def row_outcomes(self, requests, known, given_up):
            for number in range(3):
                for row in range(2):
                    if row not in given_up:
                        yield row, number, f"answer {number}"

    class Row:
        def __init__(self, folder):
            self.results, self.added, self.run = {}, [], SimpleNamespace(folder=folder)

        def add(self, number, outcome, asking):
            if self.run.folder == "gone":
                raise OSError("no space left")
            self.added.append(outcome)

    own, other = Row("own"), Row("gone")
    rows.ask(Engine(), [own, other], SimpleNamespace(requests=[]))
    assert own.added == ["answer 0", "answer 1", "answer 2"]
    own, other = Row("gone"), Row("other")
    with pytest.raises(OSError, match="no space left"):
        rows.ask(Engine(), [own, other], SimpleNamespace(requests=[]))
    assert other.added == ["answer 0", "answer 1", "answer 2"]


def test_documents_that_fail_in_a_pass_are_not_asked_again_by_their_row(untrained, evaluate, tmp_path, write_tasks):
    from PIL import Image

    folder = write_tasks(asked={"generation_kwargs": {"max_new_tokens": 3}}, num_pictures=1)
    # The second document's picture is no picture.
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    (folder / "pictures.py").write_text(
        f"def pictures(doc):\n    return ['{tmp_path}/a.png' if doc['question'] == 'What?' else '{tmp_path}/b.png']\n"
    )
    file = write_pass(tmp_path, untrained / "vico", {name: ROWS[name] for name in ("vanilla", "half")})
    entries = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump([one | {"tasks": "asked", "include_path": str(folder)} for one in entries]))
    log = evaluate(file)
    assert log.count("Loading weights: 100%") == 1
    for name in ("vanilla", "half"):
        assert len((tmp_path / name / "answers.rank0.jsonl").read_text().splitlines()) == 1
        assert len((tmp_path / name / "failures.rank0.jsonl").read_text().splitlines()) == 1
        documents = read_run(tmp_path / name).tasks["asked"].documents
        assert sum(document.failure is not None for document in documents) == 1


def test_a_row_goes_on_after_a_failed_document_only_if_its_own_arguments_say_so(
    untrained, evaluate, tmp_path, write_tasks
):
    folder = write_tasks(asked={"generation_kwargs": {"max_new_tokens": 3}}, num_pictures=1)
    (tmp_path / "b.png").write_text("no picture")
    (folder / "pictures.py").write_text(f"def pictures(doc):\n    return ['{tmp_path}/b.png']\n")
    file = write_pass(tmp_path, untrained / "vico", {name: ROWS[name] for name in ("vanilla", "half")})
    first, second = yaml.safe_load(file.read_text())
    second["model_args"] = second["model_args"].replace(",keep_going=True", "")
    file.write_text(yaml.safe_dump([one | {"tasks": "asked", "include_path": str(folder)} for one in (first, second)]))
    log = evaluate(file, status=1)
    assert f"{tmp_path / 'half'} has no results" in log
    assert f"{tmp_path / 'vanilla'} has no results" not in log
    assert len(read_run(tmp_path / "vanilla").tasks["asked"].documents) == 2
    assert not list((tmp_path / "half").rglob("*_results.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"pass.yaml can't be read: .*No such file"),
        ("- model: [", "can't be read"),
        ("model: vanilla_internvl", "can't be read"),
        ("- {model_args: a=1}", "can't be read"),
        ("- {model: '', model_args: a=1}", "can't be read"),
        ("- !!python/object/apply:os.system [true]", "can't be read"),
        ("x" * (2**22 + 1), "is larger than"),
    ],
    ids=["missing", "cut off", "no list", "no model", "blank", "code", "large"],
)
def test_a_file_that_is_no_pass_is_refused(tmp_path, text, message):
    file = tmp_path / "pass.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_pass(file)


def test_a_row_without_a_folder_is_refused(tmp_path):
    file = tmp_path / "pass.yaml"
    file.write_text("- {model: vanilla_internvl, model_args: pretrained=a, tasks: b, output_path: c}\n")
    (row,) = read_pass(file)
    with pytest.raises(ConfigError, match="expected record_dir=FOLDER"):
        _ = row.folder
