"""A run that is killed in the middle and goes on: real lmms-eval processes on the built-in model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vico_eval.commands.run import RunOptions, run_suite

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


def test_a_run_that_was_killed_goes_on_and_ends_as_one_that_was_not(run, only_tasks_of, tmp_path, monkeypatch, capsys):
    asked = (
        *("run", "tiny", "--rows", "vanilla", "--benchmark", ",".join(TASKS), "--limit", "6"),
        *("--batch-size", "2", "--device", "cpu"),
    )
    whole, again = tmp_path / "whole", tmp_path / "again"
    for folder in (whole, again):
        folder.mkdir()
    only_tasks_of()
    monkeypatch.chdir(whole)
    status, _, err = run(*asked)
    assert status == 0, err
    expected = answers(whole / FOLDER)
    assert len(expected) == 12
    process = subprocess.Popen([*COMMAND, *asked], cwd=again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = again / FOLDER / "answers.rank0.jsonl"
    deadline = time.monotonic() + 300
    while not (journal.exists() and journal.read_text().count("\n") >= 4):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert not list((again / FOLDER).rglob("*_results.json"))
    # A count that no model gives shows that the answer was taken over.
    journal.write_text(journal.read_text().replace('"generated_tokens": ', '"generated_tokens": 1000', 1))
    monkeypatch.chdir(again)
    status, _, err = run(*asked)
    assert status == 0, err
    found = answers(again / FOLDER)
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
