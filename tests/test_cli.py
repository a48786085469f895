"""The command line as users meet it: help, exit status, streams, and what it does not import."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.main import get_command

from vico_eval import __version__, commands
from vico_eval.cli import app
from vico_eval.commands import completion
from vico_eval.commands.help import GROUPS
from vico_eval.commands.work import doctor
from vico_eval.commands.work.methods import print_methods
from vico_eval.methods.registry import method_names
from vico_eval.report.papers.layout import PAPERS
from vico_eval.terminal import SafeConsole


def all_commands(group, prefix=""):
    """Commands by the words that call them, those of groups included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, f"{prefix}{name} ")
        if getattr(command, "invoke_without_command", True):
            yield f"{prefix}{name}", command


COMMANDS = dict(all_commands(get_command(app)))


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["methods"], ["tasks"]])
def test_what_only_prints_imports_nothing_heavy(arguments):
    program = (
        "import sys\n"
        "from vico_eval.cli import main\n"
        f"try:\n    main({arguments})\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'matplotlib', 'lmms_eval'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("HEAVY []")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_a_sentence_and_two_examples(run, command):
    status, out, _ = run(*command.split(), "--help")
    assert status == 0
    examples = re.search(r"Examples:\n((?:    .+\n)+)", out)
    assert examples is not None
    assert len(examples.group(1).splitlines()) == 2
    # A sentence that fits the list of commands is not cut off there.
    *group, name = command.split()
    listed = run(*group, "--help")[1].split("Options:")[1]
    assert re.search(rf"^  {name} .*\w\.$", listed, flags=re.MULTILINE)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_examples_are_commands_and_options_that_exist(run, command):
    _, out, _ = run(*command.split(), "--help")
    for line in re.findall(r"^\s+(vico-eval .+)$", out.split("Options:")[0], flags=re.MULTILINE):
        line = line.removeprefix("vico-eval ").rstrip('")')
        name = max((name for name in COMMANDS if f"{line} ".startswith(f"{name} ")), key=len)
        known = COMMANDS[name]
        options = {option for parameter in known.params for option in parameter.opts}
        assert {word for word in line.split() if word.startswith("--")} <= options


def test_version(run):
    assert run("--version")[:2] == (0, f"vico-eval {__version__}\n")


def test_tasks_prints_a_folder_that_can_be_piped(run):
    status, out, err = run("tasks")
    assert (status, err) == (0, "")
    assert out.endswith("tasks\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["demo", "--limt", "3"],
        ["demo", "--limit", "0"],
        ["demo", "--limit", "x"],
        ["report"],
        ["report", "--table", "vico-3"],
        ["papers", "folder"],
        ["papers", "--table", "0"],
        ["run", "tiny", "--json"],
        ["papers", "audit", "--table", "3"],
        ["train", "huge"],
    ],
)
def test_wrong_usage_ends_with_2(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Usage:" in err


def test_commands_are_listed_in_groups(run):
    _, out, _ = run("--help")
    groups = dict(re.findall(r"^(\w+):\n((?:  .+\n)+)", out, flags=re.MULTILINE))
    listed = {title: re.findall(r"^  ([a-z-]+)  ", groups[title], flags=re.MULTILINE) for title in GROUPS}
    assert listed["Evaluate"] == ["demo", "run", "vlmeval"]
    assert sorted(name for names in listed.values() for name in names) == sorted(get_command(app).commands)
    assert [title for title in groups if title in GROUPS] == list(GROUPS)


def test_a_command_is_one_file_with_its_options():
    folder = Path(commands.__file__).parent
    shared = {"__init__", "arguments", "completion", "help", "options", "output"}
    named = {name.replace("-", "_") for name in get_command(app).commands}
    assert {path.stem for path in folder.glob("*.py")} - shared == named


def test_methods_are_a_table_with_a_line_each_for_other_programs(run):
    status, out, _ = run("methods")
    assert status == 0
    head, *lines = out.splitlines()
    places = [head.index(title) for title in ("Method", "Place", "Models", "Needs", "Source")]
    cells = {line.split()[0]: [line[place:].split("  ")[0] for place in places[1:]] for line in lines}
    assert cells["fastv"] == ["decoder", "any", "-", "Chen et al., ECCV 2024 (arXiv 2403.06764)"]
    assert cells["vico"][1:3] == ["with tiles", "a router and a low connector (a Flash checkpoint)"]
    assert list(cells) == list(method_names())


def test_a_table_fits_a_terminal(monkeypatch):
    raw = io.StringIO()
    terminal = SafeConsole(file=raw, width=70, force_terminal=True, color_system=None)
    monkeypatch.setattr("vico_eval.commands.output.results_console", lambda: terminal)
    print_methods(None)
    assert max(map(len, raw.getvalue().splitlines())) <= 70
    assert "random_tokens" in raw.getvalue()


@pytest.mark.parametrize(
    ("arguments", "look"),
    [
        (["methods"], lambda found: found[0]["name"] == "all_compress" and found[0]["place"] == "connector"),
        (
            ["methods", "random"],
            lambda found: {"name": "ratio_from", "required": False, "default": None} in found["arguments"],
        ),
        (["checkpoints"], lambda found: found[0]["checkpoint"] == "vico-tiny-base" and found[0]["built_in"]),
        (["tasks"], lambda found: found["benchmarks"]["docvqa"]["title"] == "DocVQA" and found["suites"][0]["rows"]),
        (["papers", "--paper", "vico", "--table", "3"], lambda found: found[0]["value"] == 91.3),
        (["papers", "audit"], lambda found: len(found) == 14 and all(one["known"] for one in found)),
        (["doctor", "--offline"], lambda found: found["vico_eval"] == __version__ and found["cpu"]["cores"] >= 1),
    ],
)
def test_a_script_gets_json_and_nothing_else(run, tmp_path, monkeypatch, arguments, look):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(*arguments, "--json")
    assert status == 0
    assert look(json.loads(out))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_json_on_stdout_without_words_of_libraries(tmp_path):
    command = [
        sys.executable,
        "-m",
        "vico_eval",
        "run",
        "tiny",
        "--limit",
        "1",
        "--rows",
        "vico",
        "--dry-run",
        "--json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    plan = json.loads(done.stdout)
    assert [run["name"] for run in plan["runs"]] == ["vanilla", "vico"]
    assert plan["runs"][1]["to_do"][0] == "Read"
    assert plan["runs"][1]["command"][1:3] == ["-m", "lmms_eval"]
    assert [one["runs"] for one in plan["passes"]] == [["vanilla"], ["vico"]]
    assert "_pytree" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_libraries_say_is_shown_if_asked_for(run, monkeypatch):
    said = logging.getLogger("torch.utils._pytree")
    monkeypatch.setattr(said, "level", logging.NOTSET)
    run("--verbose", "tasks")
    assert said.level == logging.NOTSET
    run("tasks")
    assert said.level == logging.ERROR


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["methods", "fastw"], "vico-eval methods fastv"),
        (["demo", "--rows", "vanilla,vicco", "--limit", "3"], "vico-eval demo --rows vanilla,vico --limit 3"),
        (["papers", "--paper", "vic"], "vico-eval papers --paper vico"),
    ],
)
def test_an_error_ends_with_the_command_that_would_have_worked(run, arguments, command):
    status, _, err = run(*arguments)
    assert status == 1
    assert err.splitlines()[-1] == f"Try: {command}"


def test_no_command_is_suggested_where_no_name_is_near_or_two_places_have_it(run):
    assert "Try:" not in run("methods", "xyzzy")[2]
    # Which of the two was meant as a row is not for us to say.
    assert "Try:" not in run("demo", "--rows", "vicco", "--out", "vicco")[2]


@pytest.mark.parametrize(
    ("complete", "typed", "offered"),
    [
        (completion.methods, "fas", "fastv"),
        (completion.methods, "vico+fas", "vico+fastv"),
        (completion.rows, "vanilla,divp", "vanilla,divprune"),
        (completion.suites, "vico-table1", "vico-table1"),
        (completion.papers, "internvl", "internvl-x"),
        (completion.checkpoints, "vico-tiny-b", "vico-tiny-base"),
    ],
)
def test_a_shell_is_offered_whole_values(complete, typed, offered):
    assert complete(typed) == [offered]


def test_the_papers_offered_are_those_there_are():
    assert set(completion.papers("")) == set(PAPERS)


def test_a_shell_completes_commands_and_values():
    asked = {"_VICO_EVAL_COMPLETE": "complete_bash", "COMP_WORDS": "vico-eval methods fas", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "vico_eval"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fastv"]


def test_a_method_is_described_with_its_arguments(run):
    status, out, _ = run("methods", "random")
    assert status == 0
    assert re.search(r"ratio_from +default None", out)


def test_a_missing_extra_is_listed_with_what_it_adds_and_how_to_install_it(run, monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "1.2.3" if name == "lmms-eval" else doctor_missing(name))
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    status, out, _ = run("doctor", "--offline")
    assert status == 0
    assert re.search(r"^  lmms +1\.2\.3 +vico-eval run and demo", out, flags=re.MULTILINE)
    assert re.search(
        r"^  train +missing +vico-eval train.*\n +pip install 'vico-eval\[train\]'", out, flags=re.MULTILINE
    )
    assert "torch (missing)" in out
    assert "Hub         https://huggingface.co: not tested" in out


def doctor_missing(name):
    raise doctor.PackageNotFoundError(name)


def test_a_hub_that_does_not_answer_is_no_error(monkeypatch):
    asked = []

    def head(address, **options):
        asked.append((address, options["timeout"]))
        raise httpx.ConnectTimeout("nobody there")

    monkeypatch.setattr(httpx, "head", head)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert doctor.diagnose(ask_hub=True)["hub"]["reachable"] is False
    ((address, seconds),) = asked
    assert address.startswith("https://")
    assert seconds <= 5
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert doctor.diagnose(ask_hub=True)["hub"]["reachable"] is None
    assert len(asked) == 1


def test_an_unknown_method_ends_with_1_and_lists_the_known(run):
    status, out, err = run("methods", "randon")
    assert (status, out) == (1, "")
    assert "did you mean 'random'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "missing"], "missing is not a folder"),
        (["report", "missing", "--table", "vico-9"], "unknown suite 'vico-9'"),
        (["report", "--table", "vico-3", "missing"], "missing is not a folder"),
        (["papers", "--table", "7"], "no published table 7"),
        (["papers", "--paper", "fastv"], "unknown paper 'fastv'"),
    ],
)
def test_a_report_of_nothing_ends_with_1(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_training_without_a_recipe_ends_with_1(run, tmp_path):
    status, _, err = run("train", "tiny", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out"))
    assert status == 1
    assert "recipe.yaml" in err


def test_an_unknown_row_ends_with_1_and_lists_the_known(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("demo", "--rows", "vicco", "--limit", "1")
    assert (status, out) == (1, "")
    assert "unknown row 'vicco'" in err
    assert "did you mean 'vico'?" in err
    assert "vanilla_vir" in err
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    status, _, err = run("demo", "--limit", "1", "--out", str(tmp_path / "file" / "table"))
    assert status == 1
    assert "Can't write into" in err
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
