"""lmms-eval with a real vLLM server: results, records, a server that is killed, two engines in a folder."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from vico_eval.paths import tasks_dir
from vico_eval.runs.read import read_record

SOME_TASKS = Path(__file__).parents[1] / "some_tasks.py"
TASKS = "tiny_read,tiny_compare,tiny_video"
LIMIT = 30
ENVIRONMENT = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def start(folder: Path, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """lmms-eval on ViCO's built-in checkpoint."""
    given = ("pretrained=vico-tiny", f"record_dir={folder}", "resume=True", "previews=False", *arguments)
    command = [sys.executable, str(SOME_TASKS), "", "lmms_eval", "--model", "vico_internvl"]
    command += ["--model_args", ",".join(given), "--include_path", str(tasks_dir()), "--tasks", TASKS]
    command += ["--output_path", str(folder), "--log_samples", "--limit", str(LIMIT), "--batch_size", "4"]
    with log.open("wb") as output:
        return subprocess.Popen([*command, "--device", "cpu"], stdout=output, stderr=output, env=ENVIRONMENT)


def evaluate(folder: Path, *arguments: str) -> str:
    log = folder.with_suffix(".log")
    assert start(folder, log, *arguments).wait(timeout=600) == 0, log.read_text()[-3000:]
    return log.read_text()


def samples(folder: Path):
    """By task and document what lmms-eval wrote of the answer, its tokens and its score; of its newest results."""
    found = {}
    for file in sorted(folder.rglob("*_samples_*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            kept = [line[name] for name in ("filtered_resps", "token_counts", "exact_match")]
            found[file.stem.split("_samples_")[1], line["doc_id"]] = kept
    assert len(found) == 3 * LIMIT
    return found


def test_results_are_those_of_transformers_and_a_killed_server_loses_nothing(vllm_server, tmp_path):
    evaluate(tmp_path / "transformers")
    expected = samples(tmp_path / "transformers")
    served = ("engine=vllm", f"server={vllm_server.url}")
    folder = tmp_path / "vllm"
    process = start(folder, tmp_path / "killed.log", *served)
    journal = folder / "answers.rank0.jsonl"
    deadline = time.monotonic() + 300
    while not (journal.exists() and journal.read_text().count("\n") >= 5):
        assert time.monotonic() < deadline
        assert process.poll() is None, (tmp_path / "killed.log").read_text()[-3000:]
        time.sleep(0.01)
    vllm_server.kill()
    process.wait(timeout=300)
    log = (tmp_path / "killed.log").read_text()
    assert "no vLLM server is left" in log
    kept = journal.read_text().splitlines()
    assert 5 <= len(kept) < 3 * LIMIT
    assert not list(folder.rglob("*_results.json"))
    vllm_server.restart()
    evaluate(folder, *served)
    assert samples(folder) == expected
    lines = journal.read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert len(lines) == 3 * LIMIT
    record = read_record(folder)
    assert record.settings["engine"] == "vllm"
    assert record.engine["version"]
    assert record.engine["servers"][0]["address"] == vllm_server.url
    # Answers of another engine are another run's.
    log = evaluate(folder)
    assert "it has another settings" in log
    assert (folder / "answers.rank0.jsonl.old1").read_text().splitlines() == lines
    assert read_record(folder).engine == {}
