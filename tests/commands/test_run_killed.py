"""A run that is killed in the middle and goes on: real lmms-eval processes on the built-in model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.run import run_suite
from vico_eval.paths import tasks_dir

TASKS = ["tiny_read", "tiny_doc"]
FOLDER = Path("runs") / "tiny-limit6" / "vanilla"
COMMAND = (sys.executable, "-c", "import sys; from vico_eval.cli import main; main(sys.argv[1:])")


def answers(folder):
    """Text, token counts and score by task and document, from lmms-eval's samples."""
    found = {}
    for file in sorted(folder.rglob("*_samples_*.jsonl")):
        task = file.stem.split("_samples_")[1]
        for line in map(json.loads, file.read_text().splitlines()):
            found[task, line["doc_id"]] = (line["filtered_resps"], line["token_counts"], line["exact_match"])
    return found


def answers_of_one_that_was_not_killed(arguments):
    """The same of an evaluation in this process."""
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    results = simple_evaluate(
        model="vanilla_internvl", model_args=arguments, tasks=TASKS, task_manager=manager, limit=6, batch_size=2
    )
    return {
        (task, line["doc_id"]): (line["filtered_resps"][0], line["token_counts"], line["exact_match"])
        for task, lines in results["samples"].items()
        for line in lines
    }


def test_a_run_that_was_killed_goes_on_and_ends_as_one_that_was_not(run, only_tasks_of, tmp_path, monkeypatch, capsys):
    asked = (
        *("run", "tiny", "--rows", "vanilla", "--benchmark", ",".join(TASKS), "--limit", "6"),
        *("--batch-size", "2", "--device", "cpu"),
    )
    process = subprocess.Popen([*COMMAND, *asked], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / FOLDER / "answers.rank0.jsonl"
    deadline = time.monotonic() + 300
    while not (journal.exists() and journal.read_text().count("\n") >= 4):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / FOLDER).rglob("*_results.json"))
    # A count that no model gives shows that the answer was taken over.
    journal.write_text(journal.read_text().replace('"generated_tokens": ', '"generated_tokens": 1000', 1))
    only_tasks_of()
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*asked)
    assert status == 0, err
    command = json.loads((tmp_path / FOLDER / "record.json").read_text())["command"]
    own = command[command.index("--model_args") + 1].split(",")
    expected = answers_of_one_that_was_not_killed(
        ",".join(argument for argument in own if not argument.startswith(("record_dir=", "resume=", "previews=")))
    )
    assert len(expected) == 12
    found = answers(tmp_path / FOLDER)
    (marked,) = [key for key, (_, counts, _) in found.items() if counts[0]["account"]["generated_tokens"] > 1000]
    assert found.pop(marked)[0] == expected.pop(marked)[0]
    assert found == expected
    options = RunOptions(rows=["vanilla"], benchmarks=TASKS, limit=6, batch_size=2, device="cpu")
    run_suite("tiny", options, dry_run=True)
    plan = capsys.readouterr().err
    assert "finished: Read, Doc" in plan
    assert "lmms_eval" not in plan


def descendants(pid):
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(descendant for child in children for descendant in descendants(child))]
