"""The code of README and documentation: Python runs, commands run or, where they need more than this machine, parse."""

import doctest
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command

from vico_eval.cli import app
from vico_eval.methods import registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


def blocks(page, *languages):
    """The blocks of a page in these languages: language, text, and why a block is not run (None where it is)."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(own["language"], own["text"], own["why"]) for own in found if own["language"] in languages]


def with_blocks(*languages):
    pages = [page for page in PAGES if blocks(page, *languages)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with pictures of the built-in benchmark, and a registry that forgets what a page registers."""
    documents = pd.read_parquet(ROOT / "tasks" / "tiny" / "data" / "test-count.parquet")
    for name, picture in zip(("a", "b", "page"), documents["image_1"], strict=False):
        (tmp_path / f"{name}.png").write_bytes(picture["bytes"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    return tmp_path


@with_blocks("python", "pycon")
def test_python_runs_and_prints_what_the_page_says(page, desk):
    names = {"__name__": page.stem}
    for language, text, why in blocks(page, "python", "pycon"):
        assert why is None, "Python is always run"
        if language == "pycon":
            example = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), 0)
            printed = []
            doctest.DocTestRunner().run(example, out=printed.append, clear_globs=False)
            assert printed == []
            names |= example.globs
        else:
            exec(compile(text, page.name, "exec"), names)


def command_lines(text):
    """Words of each command of a block, without comments, what a shell sets before it and where it sends its output."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        ends = [place for place, word in enumerate(words) if word in ("|", ">", "&&")]
        if words := words[: min(ends, default=len(words))]:
            yield words


def parse(words):
    """Have the command line read a command without running it; a mistake raises what it would say."""
    command = get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands") or words[:1] == [] or words[0].startswith("-"), (
        f"No such command {words[0]}"
    )
    command.make_context("vico-eval", list(words))


@with_blocks("bash")
def test_commands_run_or_can_be_parsed(page, desk, run):
    for _, text, why in blocks(page, "bash"):
        for program, *words in command_lines(text):
            if Path(program).name == "vico-eval":
                parse(words)
                if why is None:
                    status, _, error = run(*words)
                    assert status == 0, error
            elif program == "make":
                target = next(word for word in words if "=" not in word and not word.startswith("-"))
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
            elif program == "python" and words[0].endswith(".py"):
                assert (ROOT / words[0]).is_file()


@pytest.mark.parametrize("wrong", ["run tiny --limt 3", "demo --limit none", "reprt runs/vico"])
def test_a_command_that_would_not_parse_is_found(wrong):
    with pytest.raises(Exception, match=r"(?i)no such|should be a valid"):
        parse(wrong.split())


def test_programs_named_in_the_text_are_there():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`(?:python )?((?:benchmarks|vico_eval|tests|models|tasks)/[\w/.-]+)[^`]*`", text):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
