"""One row over two machines, which are two commands here, and one of them is killed: real lmms-eval processes."""

import os
import signal
import socket
import subprocess
import time

import yaml

from .test_run_killed import COMMAND, FOLDER, TASKS, answers, answers_of_one_that_was_not_killed, descendants

ASKED = (
    *("run", "tiny", "--rows", "vanilla", "--benchmark", ",".join(TASKS), "--limit", "6", "--batch-size", "1"),
    *("--device", "cpu", "--launch", "nice -n 1 env MACHINES=2"),
)
LIMIT_S = 600


def start(folder, rank, port):
    """The command of a machine. On a CPU accelerate connects processes as it does those of several GPUs."""
    told = {"distributed_type": "MULTI_GPU", "num_machines": 2, "num_processes": 2, "machine_rank": rank}
    file = folder / f"machine{rank}.yaml"
    file.write_text(yaml.safe_dump({**told, "main_process_ip": "127.0.0.1", "main_process_port": port}))
    words = [*COMMAND, *ASKED, "--accelerate-config", file.name]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_machines_of_which_one_is_killed_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [start(tmp_path, rank, port) for rank in (0, 1)]
    journal = tmp_path / FOLDER / "answers.rank0.jsonl"
    until = time.monotonic() + LIMIT_S
    while not (journal.exists() and journal.read_text().count("\n")):
        assert time.monotonic() < until
        assert machines[0].poll() is None
        time.sleep(0.005)
    for pid in descendants(machines[0].pid):
        os.kill(pid, signal.SIGKILL)
    said, _ = machines[1].communicate(timeout=LIMIT_S)
    assert machines[1].returncode == 1, said
    assert "the command of machine 0 stopped early" in " ".join(said.split())
    machines[0].communicate()
    assert not list((tmp_path / FOLDER).rglob("*_results.json"))
    # A count that no model gives shows that the answer was taken over.
    journal.write_text(journal.read_text().replace('"generated_tokens": ', '"generated_tokens": 1000', 1))

    machines = [start(tmp_path, rank, port) for rank in (1, 0)]
    for machine in machines:
        said, _ = machine.communicate(timeout=LIMIT_S)
        assert machine.returncode == 0, said
    assert (tmp_path / FOLDER / "answers.rank1.jsonl").exists()
    assert "nice -n 1 env MACHINES=2" in (tmp_path / FOLDER.parent / "vanilla.machine1.log").read_text().splitlines()[0]

    found = answers(tmp_path / FOLDER)
    command = yaml.safe_load((tmp_path / FOLDER / "record.json").read_text())["command"]
    own = command[command.index("--model_args") + 1].split(",")
    expected = answers_of_one_that_was_not_killed(
        ",".join(argument for argument in own if not argument.startswith(("record_dir=", "resume=", "previews=")))
    )
    assert len(expected) == 12
    (marked,) = [key for key, (_, counts, _) in found.items() if counts[0]["account"]["generated_tokens"] > 1000]
    assert found.pop(marked)[0] == expected.pop(marked)[0]
    assert found == expected
