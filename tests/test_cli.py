"""The command line as users meet it: help, exit status, streams, and what it does not import."""

import re
import subprocess
import sys

import pytest
from typer.main import get_command

from vico_eval import __version__
from vico_eval.cli import app


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
        ["papers", "audit", "--table", "3"],
        ["train", "huge"],
    ],
)
def test_wrong_usage_ends_with_2(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Usage:" in err


def test_methods_are_listed_with_a_sentence_each(run):
    status, out, _ = run("methods")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"vanilla", "vico", "random"}


def test_a_method_is_described_with_its_arguments(run):
    status, out, _ = run("methods", "random")
    assert status == 0
    assert re.search(r"ratio_from +default None", out)


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
