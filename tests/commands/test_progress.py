import io
from pathlib import Path

import pytest
from rich.console import Console

from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.commands.work.progress import LiveProgress, PlainProgress


def planned(name, documents):
    cell = Cell(benchmark="Read", tasks=("read",), results=("read",), documents=documents)
    return PlannedRun(name=name, system=name, title=name, folder=Path(name), cells=(cell,), launcher=(), arguments=())


def shown(progress_class, documents=30, **console):
    text = io.StringIO()
    runs = [planned("vico", documents), planned("all_compress", documents)]
    with progress_class(Console(file=text, width=120, **console), runs) as progress:
        progress.kept(runs[0])
        progress.started(runs[1:])
        progress.advanced(runs[1], 12)
        progress.finished(runs[1], 61.4)
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
    assert "all_compress: 12 documents" in shown(PlainProgress, documents=None)


@pytest.mark.parametrize("what", ["kept", "30/30", "12/30", "done"])
def test_on_a_terminal_each_row_has_a_bar(what):
    assert what in shown(LiveProgress, force_terminal=True)


def test_a_bar_needs_no_number_of_documents():
    assert "12/?" in shown(LiveProgress, documents=None, force_terminal=True)


def shown_together(progress_class, **console):
    text = io.StringIO()
    runs = [planned(name, 30) for name in ("vanilla", "fastv", "vico")]
    with progress_class(Console(file=text, width=120, **console), runs) as progress:
        progress.started(runs[:2])
        for count, run in ((12, runs[0]), (12, runs[1]), (30, runs[0])):
            progress.advanced(run, count)
        yield text.getvalue()
        progress.advanced(runs[1], 30)
        progress.finished(runs[0], 61.4)
        progress.parted(runs[1], Path("vanilla+1.log"))
        progress.started(runs[1:2])
        progress.finished(runs[1], 99)
    yield text.getvalue()


def test_without_a_terminal_a_pass_has_a_line_for_all_its_rows(monkeypatch):
    *_, text = shown_together(PlainProgress)
    assert text.splitlines() == [
        "[0/3 runs] vanilla and 1 more: started",
        "[1/3 runs] vanilla: done in 61 s, in a pass with 1 more",
        "fastv: its pass did not finish it; it continues in a process of its own. Log of the pass: vanilla+1.log",
        "[1/3 runs] fastv: started again",
        "[2/3 runs] fastv: done in 99 s",
    ]
    monkeypatch.setattr(PlainProgress, "EVERY_S", 0.0)
    *_, text = shown_together(PlainProgress)
    assert "[0/3 runs] vanilla and 1 more: 42 of 60 answers" in text
    assert "fastv: 12" not in text


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((), ["loading", "loading"]),
        ((30, 12), ["answered", "answering"]),
        ((30, 12, 30, 30, 30), ["scoring", "scoring"]),
    ],
)
def test_rows_of_a_pass_are_scored_only_when_all_are_answered(counts, expected):
    text = io.StringIO()
    runs = [planned(name, 30) for name in ("vanilla", "fastv")]
    with LiveProgress(Console(file=text, width=120, force_terminal=True), runs) as progress:
        progress.started(runs)
        for place, count in enumerate(counts):
            progress.advanced(runs[place % 2], count)
    last = text.getvalue().rsplit("vanilla", 1)[1]
    assert [word for word in last.split() if word in ("loading", "answering", "answered", "scoring")] == expected
