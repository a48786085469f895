import io
from pathlib import Path

import pytest
from rich.console import Console

from vico_eval.commands.plan import PlannedRun
from vico_eval.commands.progress import LiveProgress, PlainProgress

RUNS = [
    PlannedRun(name=name, system=name, title=name, folder=Path(name), command=()) for name in ("vico", "all_compress")
]


def shown(progress_class, **console):
    text = io.StringIO()
    with progress_class(Console(file=text, width=120, **console), RUNS, 30) as progress:
        progress.kept(RUNS[0])
        progress.started(RUNS[1])
        progress.advanced(RUNS[1], 12)
        progress.finished(RUNS[1], 61.4)
    return text.getvalue()


def test_without_a_terminal_there_is_a_line_an_event():
    assert shown(PlainProgress).splitlines() == [
        "[1/2 runs] vico: complete already, kept",
        "[1/2 runs] all_compress: started",
        "[2/2 runs] all_compress: done in 61 s",
    ]


def test_a_long_row_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(PlainProgress, "EVERY_S", 0.0)
    assert "all_compress: 12 of 30 documents" in shown(PlainProgress)


@pytest.mark.parametrize("what", ["kept", "30/30", "12/30", "done"])
def test_on_a_terminal_each_row_has_a_bar(what):
    assert what in shown(LiveProgress, force_terminal=True)
