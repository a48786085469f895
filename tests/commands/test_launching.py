"""On which GPUs and machines a row's processes start, and which of these options exclude each other."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from vico_eval.commands.work.gpus import VISIBLE, GpuShares, divide, own_gpus, split_visible, visible_gpus
from vico_eval.commands.work.launcher import Launching, split_prefix
from vico_eval.commands.work.passes import PROGRAM, Pass
from vico_eval.commands.work.processes import Subprocess
from vico_eval.commands.work.starting import LONE, starting
from vico_eval.errors import ConfigError

from .fakes import make_run

PYTHON = sys.executable
NODES = Path(__file__).parents[2] / "models" / "training" / "fsdp2.yaml"
"""A configuration of accelerate."""


def test_a_model_over_several_gpus_is_placed_by_device_map_and_not_by_device(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VISIBLE, "4,5,6,7")
    asked = ("run", "vico-table3", "--checkpoint", "38B", "--rows", "vanilla", "--device", "cuda", "--dry-run")
    status, _, err = run(*asked, "--benchmark", "ai2d", "--processes", 2, "--gpus-per-process", 2)
    assert status == 0, err
    (command,) = [line for line in err.splitlines() if "lmms_eval --model" in line]
    assert "-m vico_eval.commands.work.own_gpus 2 lmms_eval" in command
    assert "--num_processes 2" in command
    assert "gpus_per_process=2,device_map=auto" in command
    assert "--device" not in command.split()
    # It changes no answer, so what there is goes on.
    _, _, err = run(*asked, "--benchmark", "ai2d", "--model-args", "device_map=balanced")
    assert "device_map=balanced" in err
    assert "--device" not in err.split()
    _, _, err = run(*asked, "--benchmark", "ai2d", "--model-args", "device_map=balanced", "--gpus-per-process", 4)
    assert err.count("device_map=") == 1
    _, _, err = run(*asked, "--benchmark", "ai2d")
    assert "--device cuda" in err


def test_too_few_gpus_are_an_error_before_anything_starts(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VISIBLE, "0,1,2")
    asked = ("run", "vico-table3", "--checkpoint", "8B", "--benchmark", "ai2d", "--device", "cuda", "--dry-run")
    status, _, err = run(*asked, "--jobs", 2, "--processes", 2)
    assert status == 1
    said = " ".join(err.split())
    assert "2 command(s) at once with 2 GPU(s) each need 4, and 3 are visible here (0, 1, 2)" in said
    status, _, err = run(*asked, "--jobs", 3)
    assert status == 0
    assert "GPUs of the commands that run at once: 1: 0, 2: 1, 3: 2" in err


@pytest.mark.parametrize(
    ("launching", "jobs", "expected"),
    [
        (Launching(), 1, []),  # nothing to divide
        (Launching(), 2, [("a",), ("b",)]),
        (Launching(processes=2), 1, []),  # the launcher gives each process its own
        (Launching(processes=2, gpus_per_process=2), 2, [("a", "b", "c", "d"), ("e", "f", "g", "h")]),
        (Launching(gpus_per_process=2), 3, [("a", "b"), ("c", "d"), ("e", "f")]),
    ],
)
def test_no_gpu_is_in_two_shares(launching, jobs, expected, monkeypatch):
    monkeypatch.setenv(VISIBLE, "a,b,c,d,e,f,g,h")
    shares = divide(launching, "cuda", jobs)
    assert shares == expected
    assert set(Counter(gpu for share in shares for gpu in share).values()) <= {1}
    assert divide(launching, "cpu", jobs) == []


def test_one_named_gpu_is_for_one_process(monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1")
    assert divide(Launching(), "cuda:1", 1) == []
    for launching, jobs in ((Launching(), 2), (Launching(processes=2), 1)):
        with pytest.raises(ConfigError, match="--device cuda:1 names one GPU, on which several processes would run"):
            divide(launching, "cuda:1", jobs)


def test_visible_gpus_are_read_as_cuda_reads_them(monkeypatch):
    assert split_visible(" 3, GPU-8a ,MIG-1") == ["3", "GPU-8a", "MIG-1"]
    assert split_visible("1,-1,2") == ["1"]
    assert split_visible("") == []
    monkeypatch.setenv(VISIBLE, "1,1")
    with pytest.raises(ConfigError, match="names a GPU twice"):
        visible_gpus()


def test_with_a_prefix_machines_without_gpus_leave_them_to_it(monkeypatch):
    monkeypatch.setenv(VISIBLE, "")
    assert divide(Launching(prefix=("srun",)), "cuda", 4) == []
    with pytest.raises(ConfigError, match=r"need 4, and 0 are visible here \(none\)"):
        divide(Launching(), "cuda", 4)
    monkeypatch.setenv(VISIBLE, "0")
    with pytest.raises(ConfigError, match="If --launch assigns the GPUs, hide those here: CUDA_VISIBLE_DEVICES=''"):
        divide(Launching(prefix=("srun",)), "cuda", 4)


def test_each_process_of_a_machine_sees_its_own_gpus(tmp_path):
    assert own_gpus(["a", "b", "c", "d"], 1, 2) == ["c", "d"]
    assert own_gpus(None, 2, 3) == ["6", "7", "8"]
    (tmp_path / "told.py").write_text(
        "import json, os, sys\nprint(json.dumps([os.environ['CUDA_VISIBLE_DEVICES'], __name__, sys.argv[1:]]))\n"
    )
    words = [PYTHON, "-m", "vico_eval.commands.work.own_gpus", "2", "told", "--tasks", "x"]

    def start(**more):
        path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
        environment = {**os.environ, "PYTHONPATH": path, **more}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    done = start(LOCAL_RANK="1", CUDA_VISIBLE_DEVICES="7,5,3,1")
    assert json.loads(done.stdout) == ["3,1", "__main__", ["--tasks", "x"]]
    done = start(LOCAL_RANK="1", CUDA_VISIBLE_DEVICES="7,5,3")
    assert done.returncode == 1
    assert "process 1 of this machine is to have 2 GPUs of CUDA_VISIBLE_DEVICES=7,5,3" in done.stderr


def test_a_share_is_free_again_when_its_process_has_ended(tmp_path):
    """By real processes, two at a time, that write down what they see."""
    tell = [PYTHON, "-c", "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(0.3)"]
    planned = make_run(tmp_path, "vico")
    with starting([], {}, [("0", "1"), ("2", "3")]) as launch:
        first, second = (launch(planned, tell, tmp_path / f"{name}.log") for name in "ab")
        with pytest.raises(RuntimeError, match="all 2 shares of GPUs are taken"):
            launch(planned, tell, tmp_path / "c.log")
        first.end()
        third = launch(planned, tell, tmp_path / "c.log")
        for process in (second, third):
            process.end()
    seen = [(tmp_path / f"{name}.log").read_text().splitlines()[-1] for name in "abc"]
    assert seen == ["0,1", "2,3", "0,1"]
    assert GpuShares([]).free() is None


def test_a_prefix_stands_before_every_command_and_no_shell_reads_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("run", "tiny", "--rows", "vanilla", "--device", "cpu", "--dry-run", "--launch")
    _, _, err = run(*asked, "env NAME='a b' $(false) nice")
    assert f"env 'NAME=a b' '$(false)' nice {PYTHON} -m lmms_eval" in err
    status, _, err = run(*asked, "env 'half")
    assert status == 1
    assert "can't be split into words: No closing quotation" in err
    assert split_prefix("") == ()


def test_behind_a_prefix_no_pass_starts_in_a_warm_process(tmp_path):
    """Which would be one of ours, without the prefix."""
    planned = [replace(make_run(tmp_path, name), launcher=("env", *LONE)) for name in ("vico", "fastv")]
    passes = [Pass(runs=(run,), cells=run.cells) for run in planned]
    with starting(passes, {}) as launch:
        process = launch(planned[0], ["env", "echo", PROGRAM], tmp_path / "vico.log")
        process.end()
    assert isinstance(process, Subprocess)
    assert (tmp_path / "vico.log").read_text().endswith(f"{PROGRAM}\n")


def words(device, **launching):
    return Launching(**launching).words(device)[1:]


def test_several_machines_get_one_and_the_same_command():
    (srun, *_), on_gpus = ("srun", PYTHON), Launching(processes=16, machines=2, prefix=("srun",)).words("cuda")
    assert on_gpus[:2] == (srun, PYTHON)
    assert on_gpus[on_gpus.index("--num_processes") + 1] == "16"
    assert on_gpus[on_gpus.index("--num_machines") + 1] == "2"
    assert on_gpus[on_gpus.index("--rdzv_backend") + 1] == "c10d"
    on_cpu = words("cpu", processes=4, machines=2)
    assert on_cpu[on_cpu.index("--nnodes") + 1] == "2"
    assert on_cpu[on_cpu.index("--nproc_per_node") + 1] == "2"
    own = words("cuda", accelerate_config=NODES)
    assert own[:4] == ("-m", "accelerate.commands.launch", "--config_file", str(NODES))
    assert words("cpu") == ("-m",)


@pytest.mark.parametrize(
    ("launching", "device", "jobs", "message"),
    [
        ({"gpus_per_process": 2}, "cpu", None, "--gpus-per-process 2 with --device cpu"),
        ({"machines": 2, "processes": 2}, "cuda", None, "--machines 2 needs --launch"),
        ({"machines": 2, "processes": 3, "prefix": ("srun",)}, "cuda", None, "can't be divided evenly"),
        ({"machines": 2, "processes": 2, "prefix": ("srun",)}, "cuda", 2, "--jobs 2 with --machines"),
        ({"accelerate_config": NODES}, "cuda", 2, "--jobs 2 with --accelerate-config"),
        ({"accelerate_config": Path("no.yaml")}, "cuda", None, "--accelerate-config no.yaml is not a file"),
        ({"accelerate_config": NODES, "machines": 2}, "cuda", None, "got --machines and --accelerate-config"),
    ],
)
def test_what_can_not_work_together_is_refused(launching, device, jobs, message):
    with pytest.raises(ConfigError, match=message):
        Launching(**launching).check(device, jobs)
    Launching().check("cuda", 4)
