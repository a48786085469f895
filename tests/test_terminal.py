"""Text from outside on a terminal: said, never obeyed, and in any encoding."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table as RichTable

from vico_eval import cli, paths
from vico_eval.commands.output import message_console, print_lines, results_console
from vico_eval.errors import ReportError
from vico_eval.logs import logger
from vico_eval.plain_text import one_line, printable, shown
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.table import Row, Table
from vico_eval.report.tables.writers import to_terminal
from vico_eval.terminal import SafeConsole

HOSTILE = "a\x1b]0;title\x07\x1b[31mred\x9b2J\u202eback\rover\x08\x7f\udcff"


def test_what_a_terminal_would_obey_is_written_out():
    assert printable("a\x1b[31mb") == r"a\x1b[31mb"
    assert printable("\x9b \x07 \r \x7f \u202e \u2066 \u200f \udcff \ufeff") == (
        r"\x9b \x07 \r \x7f \u202e \u2066 \u200f \udcff \ufeff"
    )
    kept = "line\nand\ttab, é 中 🙂 ± \N{NO-BREAK SPACE}x \N{ZERO WIDTH JOINER}"
    assert printable(kept) == kept
    assert one_line(" a\n b\x1b\u202e ") == "a b"


def test_an_encoding_gets_plain_forms_of_what_it_lacks():
    assert shown("−1.3 ± 0.3 × – … † →", "ascii") == "-1.3 +- 0.3 x - ... # ->"
    assert shown("é 中", "ascii") == r"\xe9 \u4e2d"
    assert shown("é − ±", "latin-1") == "é - ±"
    assert shown("é 中 −", "utf-8") == "é 中 −"


def console(encoding: str = "utf-8", **options) -> tuple[SafeConsole, io.BytesIO]:
    raw = io.BytesIO()
    return SafeConsole(file=io.TextIOWrapper(raw, encoding=encoding, write_through=True), width=80, **options), raw


def test_a_console_prints_markup_emoji_and_escape_sequences_literally():
    own, raw = console(force_terminal=True, color_system="truecolor")
    own.print(f"[red]x[/red] [/x] :smile: {HOSTILE}", soft_wrap=True)
    text = raw.getvalue().decode()
    assert "[red]x[/red] [/x] :smile:" in text
    assert not set("\x1b\x07\x9b\r\x08\x7f\u202e") & set(text)


def test_a_consoles_own_colours_and_bars_stay():
    own, raw = console(force_terminal=True, color_system="truecolor")
    with Progress(TextColumn("{task.description}", markup=False), console=own) as bars:
        bars.add_task(f"[red]x {HOSTILE}")
    text = raw.getvalue().decode()
    assert "\x1b[?25l" in text  # the cursor is hidden while bars move
    assert r"[red]x a\x1b]0;title" in text
    assert "\x1b]0;title" not in text
    assert "\x9b" not in text


ROW = HOSTILE.replace("\udcff", "")  # pandas has no room for it


def make_table() -> Table:
    values = {"A": 50.0, AVERAGE: 100.0}
    summary = pd.DataFrame(
        {
            "difference": -1.3,
            "difference_se": 0.3,
            "token_share": 50.0,
            "documents": 4,
            "retention_spread": float("nan"),
        },
        index=["Vanilla", ROW],
    )
    return Table(
        caption=f"Caption [b] {HOSTILE}",
        columns=("A",),
        digits={},
        rows=tuple(Row(title=title, kind="score", values=values, competes=False) for title in summary.index),
        baseline="Vanilla",
        notes=(f"failed: {HOSTILE} [/red]",),
        summary=summary,
        comparison=(f"{HOSTILE}: 95.4%",),
    )


@pytest.mark.parametrize("kind", [SafeConsole, Console])
def test_a_table_obeys_nothing_on_any_console(kind):
    raw = io.StringIO()
    kind(file=raw, width=120, force_terminal=True, color_system=None).print(to_terminal(make_table(), 120))
    text = raw.getvalue()
    assert not set("\x1b\x07\x9b\r\x08\x7f\u202e") & set(text)
    assert "[b]" in text
    assert "[/red]" in text


def test_a_table_keeps_its_columns_on_a_terminal_of_ascii():
    own, raw = console("ascii")
    own.print(to_terminal(make_table(), 80))
    lines = raw.getvalue().decode("ascii").splitlines()
    head = next(line for line in lines if "Difference" in line)
    row = next(line for line in lines if "-1.3 +- 0.3" in line)
    # Both columns end where their heads do.
    assert row.index("+- 0.3") + len("+- 0.3") == head.index("Difference") + len("Difference")
    assert len(row.rstrip()) == len(head.rstrip())


def test_nothing_printed_stops_a_console_of_ascii():
    own, raw = console("ascii")
    own.print(RichTable("±", title="−"))
    own.print("中 ×")
    assert r"\u4e2d x" in raw.getvalue().decode("ascii")


def test_errors_and_lines_are_printed_safely(capsys, monkeypatch):
    def fail(*_, **__):
        raise ReportError(f"{HOSTILE} [red] −")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main([])
    print_lines(f"{HOSTILE}[b]{'x' * 300}")
    message_console().print(HOSTILE)
    results_console().print(HOSTILE)
    out, err = capsys.readouterr()
    assert "[red] −" in err
    assert f"[b]{'x' * 300}" in out
    assert not set("\x07\x9b\r\x08\x7f\u202e") & set(out + err)
    assert "\x1b]" not in out + err


def test_the_folder_of_tasks_is_printed_in_any_encoding(monkeypatch, tmp_path):
    folder = tmp_path / "Aufgaben–中"
    monkeypatch.setattr(paths, "tasks_dir", lambda: folder)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    cli.tasks()
    sys.stdout.flush()
    assert raw.getvalue() == os.fsencode(folder) + b"\n"


def test_the_log_writes_out_what_a_terminal_would_obey():
    lines = []
    sink = logger.add(lines.append, format="{message}", level="INFO", colorize=False)
    try:
        logger.warning(f"{HOSTILE} <red>{{x}}</red>")
        logger.opt(exception=False).error("file \x9b")
    finally:
        logger.remove(sink)
    assert not set("\x1b\x07\x9b\r\x08\x7f\u202e") & set("".join(lines))
    assert "<red>{x}</red>" in lines[0]
    assert lines[1] == "file \\x9b\n"


def test_everything_is_printed_and_logged_by_these():
    for path in Path(cli.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "terminal.py":
            assert not re.search(r"(?<!Safe)\bConsole\(", text), f"{path} makes a console that obeys what it prints"
        if path.name != "logs.py":
            assert "from loguru import" not in text, f"{path} logs what a terminal may obey"


def test_published_tables_are_printed_in_ascii(tmp_path):
    command = [
        sys.executable,
        "-c",
        "from vico_eval.cli import main; main()",
        "papers",
        "--table",
        "3",
        "--out",
        str(tmp_path),
    ]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"95.9%#" in done.stdout
    assert b"100 x mean score" in done.stdout
