"""Programs of tests that start with the libraries loaded are as those that Python starts."""

import json
import signal
import time
from pathlib import Path

import pytest

TOLD = """
import json, os, sys
print(json.dumps([__name__, sys.argv, os.getcwd(), os.environ.get("COLOUR"), os.environ.get("RANK")]))
sys.stderr.write("to stderr\\n")
sys.exit(3)
"""


@pytest.mark.parametrize("kind", ["code", "script", "module"])
def test_words_environment_folder_output_and_status(start_loaded, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "told.py").write_text(TOLD)
    words = {"code": ["-c", TOLD, "a b", 1], "script": [tmp_path / "told.py", "a b", 1]}
    words["module"] = ["-m", "json.tool", tmp_path / "broken.json"]
    (tmp_path / "broken.json").write_text("{")
    log = tmp_path / "log"
    log.write_text("before\n")
    (program,) = start_loaded(words[kind], log, COLOUR="light blue")
    if kind == "module":
        assert program.wait(300) == 1
        assert "Expecting property name" in log.read_text()
        return
    assert program.wait(300) == 3
    before, told, error = log.read_text().splitlines()
    assert (before, error) == ("before", "to stderr")
    first = "-c" if kind == "code" else str(tmp_path / "told.py")
    assert json.loads(told) == ["__main__", [first, "a b", "1"], str(tmp_path), "light blue", None]


def test_several_processes_have_a_rank_each(start_loaded, tmp_path):
    code = (
        # The first process holds the store, so it must not end while the second still joins.
        "import sys, torch.distributed as d; d.init_process_group('gloo'); d.barrier(); "
        # print would write a line in pieces, and those of the two processes would mix
        "sys.stdout.write(f'{d.get_rank()} {d.get_world_size()}\\n'); d.destroy_process_group()"
    )
    programs = start_loaded(["-c", code], tmp_path / "log", processes=2)
    assert [program.wait(300) for program in programs] == [0, 0], (tmp_path / "log").read_text()
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["0 2", "1 2"]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_killed_ends_with_what_it_started(start_loaded, tmp_path):
    child = "echo $$ > new; mv new pid; sleep 600"
    code = f"import subprocess; subprocess.run(['sh', '-c', {child!r}], cwd={str(tmp_path)!r})"
    (program,) = start_loaded(["-c", code], tmp_path / "log")
    deadline = time.monotonic() + 300
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.kill()
    assert program.wait(300) == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_does_not_end_is_killed(start_loaded, tmp_path):
    (program,) = start_loaded(["-c", "import time; time.sleep(600)"], tmp_path / "log")
    assert program.poll() is None
    assert program.wait(0.1) == -signal.SIGKILL
