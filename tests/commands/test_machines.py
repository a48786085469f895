"""Machines with a command each: what machine 0 writes down, and what the others do. The processes only pretend."""

import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from vico_eval.commands.work import following
from vico_eval.commands.work.following import follow
from vico_eval.commands.work.launcher import Launching
from vico_eval.commands.work.machines import Order, leading, place_of
from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.passes import PROGRAM
from vico_eval.commands.work.run_folders import prepare
from vico_eval.errors import ConfigError, OutputError
from vico_eval.files import write_json
from vico_eval.runs.shards import Shard

from .fakes import World, check, make_run, read

HOLD = (
    "import sys; from pathlib import Path; from vico_eval.runs.holding import hold; "
    "held = hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)
TWO = {
    "distributed_type": "MULTI_GPU",
    "num_machines": 2,
    "num_processes": 4,
    "main_process_ip": "10.0.0.1",
    "main_process_port": 29500,
}


def config(folder, rank=0, **changes):
    path = folder / f"machine{rank}.yaml"
    path.write_text(yaml.safe_dump({**TWO, "machine_rank": rank, **changes}))
    return path


def table_of(folder, rank):
    launching = Launching(accelerate_config=config(folder, rank))
    root = folder / "runs" / "tiny"
    runs = tuple(make_run(root, name) for name in ("vanilla", "vico"))
    options = SimpleNamespace(launching=launching, fresh=False)
    return SimpleNamespace(runs=runs, runs_root=root, options=options, inputs=read(), device="cpu", is_offline=True)


class Pretended:
    """A process that runs until it is told to end."""

    def __init__(self):
        self.status, self.told = None, []

    def poll(self):
        return self.status

    def stop(self):
        self.told.append("stop")

    def end(self):
        self.told.append("end")


def order(place, **changes):
    root = place.root
    what = {"number": 3, "state": "running", "root": str(root), "rows": ("vanilla", "vico"), "processes": 2}
    started = {"run": "vico", "words": (PROGRAM, "--config", "a.yaml"), "log": str(root / "vico.log")}
    return Order(**{**what, **started, **changes}).model_dump(mode="json")


@contextmanager
def machine_0(place):
    """A process that works as the command of machine 0."""
    place.folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        yield other
        other.kill()


@pytest.fixture
def on_machine_1(tmp_path, monkeypatch):
    """A table, where the machines meet, and a function that follows and has another called when a process starts."""
    table = table_of(tmp_path, 1)
    place, started = place_of(table), []
    monkeypatch.setattr(following, "LOOK_S", 0.01)

    def go(then=lambda: None, wait_s=60.0):
        def launch(run, command, log):
            started.append((run.name, command, log, process := Pretended()))
            then()
            return process

        @contextmanager
        def pretend(passes, environment):
            yield launch

        monkeypatch.setattr(following, "starting", pretend)
        follow(table, place, Console(width=500), wait_s)
        return started

    return SimpleNamespace(table=table, place=place, go=go, started=started)


def test_machine_0_writes_down_what_it_starts_until_the_end(tmp_path):
    table, process = table_of(tmp_path, 0), Pretended()
    place = place_of(table)
    place.folder.mkdir(parents=True)
    place.refusal.write_text("of an earlier command")
    with leading(table, lambda *_: process) as launch:
        assert place._read().state == "preparing"
        led = launch(table.runs[1], [PROGRAM], tmp_path / "vico.log")
        found = place._read()
        assert (found.number, found.state, found.run) == (1, "running", "vico")
        assert (found.words, found.processes, found.rows) == ((PROGRAM,), 2, ("vanilla", "vico"))
        assert led.poll() is None
        process.status = 0
        assert led.poll() == 0
        assert place._read().state == "between"
        launch(table.runs[0], [PROGRAM], tmp_path / "vico.log")
        assert place._read().number == 2
        place.refuse("it has no legs")
        with pytest.raises(ConfigError, match="machine 0 can't join: it has no legs"):
            led.poll()
    assert place.is_over()
    with pytest.raises(KeyboardInterrupt), leading(table, lambda *_: process):
        raise KeyboardInterrupt
    assert not place.is_over()


def test_without_other_machines_nothing_is_written(tmp_path):
    table = SimpleNamespace(options=SimpleNamespace(launching=Launching(processes=2)), runs_root=tmp_path / "runs")
    with leading(table, print) as launch:
        assert launch is print
    assert not list(tmp_path.iterdir())


def test_machine_1_starts_what_machine_0_starts_and_ends_with_it(on_machine_1):
    place, table = on_machine_1.place, on_machine_1.table
    with machine_0(place):
        write_json(place.orders, order(place))
        followed = iter([order(place, number=4, run="vanilla"), order(place, number=4, state="over")])
        on_machine_1.go(lambda: write_json(place.orders, next(followed)))
    (_, _, _, first), (_, command, log, second) = on_machine_1.started
    assert [name for name, *_ in on_machine_1.started] == ["vico", "vanilla"]
    assert command == (*table.runs[0].launcher, PROGRAM, "--config", "a.yaml")
    assert log == table.runs_root / "vico.machine1.log"
    assert first.told == second.told == ["end"]


def test_where_machine_0_is_killed_the_others_stop_and_say_so(on_machine_1):
    place = on_machine_1.place
    with machine_0(place) as other:
        write_json(place.orders, order(place))
        with pytest.raises(OutputError, match="machine 0 stopped early"):
            on_machine_1.go(lambda: (other.kill(), other.wait()))
    ((*_, process),) = on_machine_1.started
    assert process.told == ["stop", "end"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"root": "runs/tiny-limit8"}, "it fills runs/tiny-limit8, and this one .*Give both the same options"),
        ({"rows": ("vico",)}, "it has the rows vico, and this one vanilla, vico. Give both the same options"),
        ({"processes": 1}, r"it starts 1 process\(es\) on each machine, and this one 2"),
        ({"words": ("shutil",)}, "it starts shutil; expected"),
    ],
)
def test_another_table_is_refused_on_both_machines(on_machine_1, changes, said):
    place = on_machine_1.place
    with machine_0(place):
        write_json(place.orders, order(place, **changes))
        with pytest.raises(ConfigError, match=f"machine 1 can't join machine 0: {said}"):
            on_machine_1.go()
    assert not on_machine_1.started
    assert place.refusal.read_text().startswith("machine 1 can't join: it")


def test_machine_0_is_not_waited_for_in_vain(on_machine_1, monkeypatch):
    place, table = on_machine_1.place, on_machine_1.table
    place.folder.mkdir(parents=True)
    write_json(place.orders, order(place))  # left by a command that was killed
    with pytest.raises(OutputError, match=r"which meets the others at 10\.0\.0\.1-29500, has not started"):
        on_machine_1.go(wait_s=0)
    monkeypatch.setattr(following, "check_cells", check)
    for run in table.runs:
        prepare(run, table.inputs, World(), fresh=False)
        (run.folder / "Read").touch()
    assert on_machine_1.go(wait_s=0) == []


def test_two_commands_of_one_machine_are_refused(on_machine_1):
    place = on_machine_1.place
    place.folder.mkdir(parents=True)
    words = [sys.executable, "-c", HOLD, str(place.own_lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another command is at work as machine 1 of those that meet at"):
            on_machine_1.go()
        other.kill()


def test_accelerate_is_told_what_it_does_not_take_from_its_configuration(tmp_path):
    """It has defaults for these, which win over the file's."""
    path = config(tmp_path, rdzv_backend="c10d", same_network=True)
    words = Launching(accelerate_config=path).words("cuda")
    assert words[words.index("--rdzv_backend") + 1] == "c10d"
    assert "--same_network" in words
    assert Launching(accelerate_config=path).processes_here == 2
    assert Launching(accelerate_config=path, processes=8).processes_here == 4
    # With c10d all machines can get the same words, so --launch may start them there.
    assert Launching(accelerate_config=path, prefix=("srun",)).meeting is None
    assert Launching(accelerate_config=config(tmp_path, 1), prefix=("nice",)).meeting.rank == 1
    assert Launching(accelerate_config=config(tmp_path, num_machines=1)).meeting is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distributed_type": "MULTI_CPU"}, "accelerate starts one isolated process per machine"),
        ({"main_process_ip": None}, "expected main_process_ip and main_process_port of machine 0"),
        ({"num_processes": 3}, "num_processes=3, which is not a multiple of num_machines=2"),
        ({"machine_rank": 2}, "machine_rank=2 of num_machines=2; machines are numbered from 0 to 1"),
        ({"num_machines": 0}, "num_machines"),
    ],
)
def test_a_configuration_by_which_machines_can_not_meet_is_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        Launching(accelerate_config=config(tmp_path, **changes)).check("cpu", None)


def test_what_other_machines_would_do_in_their_own_way_is_refused(tmp_path):
    launching = Launching(accelerate_config=config(tmp_path))
    with pytest.raises(ConfigError, match="can't be divided evenly among the 2 machines of"):
        Launching(accelerate_config=config(tmp_path), processes=3).check("cpu", None)
    with pytest.raises(
        ConfigError, match="--shard 1/2 can't be combined with an --accelerate-config of several machines"
    ):
        RunOptions(launching=launching, shard=Shard(1, 2))
    with pytest.raises(
        ConfigError, match="--fixtures can't be combined with an --accelerate-config of several machines"
    ):
        RunOptions(launching=launching, fixtures=True)
