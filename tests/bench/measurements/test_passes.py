"""Rows are answered in both ways and compared, and a record says so; times themselves are no test."""

import json
import sys
from dataclasses import replace
from functools import partial

import pytest

from vico_eval.bench.measurements import pass_films, pass_sweep, pass_table, passes
from vico_eval.bench.measurements.two_ways import Answered, AnswersDiffer, Said, check_equal, compare
from vico_eval.engine import films as films_of_engine
from vico_eval.engine import media
from vico_eval.engine.video_file import look
from vico_eval.runs.schema import AnswerSeconds

TOOK = AnswerSeconds(reading=1.0, encoding=2.0, own=3.0, rows=2)
FILMS = pass_films.Films(number=2, width=64, height=48, seconds=1, shown=3)


def answered(**texts: str) -> Answered:
    """Rows of one document each, with their texts."""
    return Answered(rows={row: {"task/test/0": Said(text, TOOK)} for row, text in texts.items()})


def test_rounds_take_turns_and_ratios_are_of_a_round():
    order = []

    def way(name: str, films: int) -> Answered:
        order.append(name)
        return Answered(rows=answered(one="yes", other="no").rows, facts={"films_decoded": films})

    record = compare(partial(way, "separate", 4), partial(way, "shared", 2), rounds=2)
    assert order == ["separate", "shared", "shared", "separate"]
    assert (record["rows"], record["documents"], record["equal_answers"]) == (["one", "other"], 1, 2)
    seconds = [record[name]["seconds"] for name in ("separate", "shared")]
    assert record["ratios"] == [together / alone for alone, together in zip(*seconds, strict=True)]
    assert [record[name]["films_decoded"] for name in ("separate", "shared")] == [4, 2]
    # Two answers; reading and encoding were for two rows.
    assert record["shared"]["stage_s"] == {"reading": [1.0] * 2, "encoding": [2.0] * 2, "own": [6.0] * 2}


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (answered(one="yes", other="yes"), "other answers task/test/0 in a pass with yes, but separately with no"),
        (answered(one="yes"), "separate rows are one, other, but passes have one"),
        (
            Answered(rows=answered(one="yes").rows | {"other": {}}),
            "other: only one of the two ways answered task/test/0",
        ),
    ],
)
def test_other_answers_are_no_record(shared, message):
    with pytest.raises(AnswersDiffer, match=message):
        check_equal(answered(one="yes", other="no"), shared)
    with pytest.raises(AnswersDiffer):
        compare(lambda: answered(one="yes", other="no"), lambda: shared, rounds=1)


def test_a_sweep_answers_alike_in_both_ways(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(pass_sweep, "BUDGETS", (0.25,))
    options = ("--load", "sweep", "--size", "small", "--documents", "1", "--threads", "1")
    status, err = benchmark("passes.py", *options, "--out", str(tmp_path), "--name", "try")
    assert status == 0, err
    record = json.loads((tmp_path / "try.json").read_text())
    assert (len(record["rows"]), record["documents"], record["equal_answers"]) == (8, 1, 8)
    assert (record["load"], record["threads"], record["rounds"], record["goal"]) == ("sweep", 1, 1, 0.45)
    assert record["command"].startswith("python benchmarks/passes.py --load sweep")
    separate, shared = (record[way]["stage_s"]["encoding"][0] for way in ("separate", "shared"))
    assert 0 < shared < separate / 2
    table = (tmp_path / "README.md").read_text()
    assert "| sweep |" in table
    assert "random_tokens, dart, each with keep_ratio 0.25, on random weights of the small model in float32" in table
    assert "[try](try.json)" in table


def test_rows_of_a_sweep_differ_in_what_they_say_and_cost():
    rows = pass_sweep.sweep("small", 1, "cpu")
    of_methods = {name: rows.methods[name] for name in ("divprune 0.5", "divprune 0.0625", "dart 0.25")}
    found = replace(rows, methods=of_methods).shared().rows
    answers = [said.what for documents in found.values() for said in documents.values()]
    assert [answer.account.tiles for answer in answers] == [1] * 3
    assert [answer.account.visual_tokens for answer in answers] == [128, 16, 256]
    assert all(answer.account.generated_tokens == len(answer.text) == 2 for answer in answers)


def test_decoded_films_are_counted(monkeypatch):
    decoded = []

    def read(*given, **named):
        decoded.append(given)
        return media.read_clip(*given, **named)

    monkeypatch.setattr(films_of_engine, "read_clip", read)
    record = passes.measure("films", 1, "cpu", {"films": FILMS})
    counts = [record[way]["films_decoded"] for way in ("separate", "shared")]
    # Two films by six rows, and by one pass; two questions about a film read it once.
    assert counts == [6 * 2, 2]
    assert len(decoded) == sum(counts) + 1  # the first unused
    assert (record["documents"], record["equal_answers"]) == (4, 24)
    assert "decoded 12 times by the separate rows and 2 times by the pass" in passes.readme({"films": record})


def test_films_move_and_last_as_long_as_they_should(tmp_path):
    pass_films.write_film(tmp_path / "film.mp4", 0, FILMS)
    facts = look(tmp_path / "film.mp4", "film", with_times=True)
    assert (facts.total, facts.fps, facts.end_s) == (24, 24.0, pytest.approx(1.0))
    first, last = media.read_frames(tmp_path / "film.mp4", 2)
    assert first.size == (64, 48)
    assert first.tobytes() != last.tobytes()


# Stands for `python -m vico_eval`: a table of two rows. Words before its arguments say what goes wrong.
PROGRAM = """
import sys
from pathlib import Path
from vico_eval.runs.journal import Journal
from vico_eval.runs.schema import *
is_shared = not {"--no-shared-pass", "never"} & set(sys.argv)
if "broken" in sys.argv:
    sys.exit("no such row")
for row, other in (("vanilla", "vico"), ("vico", "vanilla")):
    folder = Path("runs") / "tiny" / row
    folder.mkdir(parents=True)
    record = RunRecord(
        version=2, system=row, title=row, command=("lmms_eval",), versions={}, donor=None, method=row, method_args={},
        checkpoint=Checkpoint(name=row, path=row, sha256=None), dtype="float32", attention="sdpa", device="cpu",
        num_processes=1, started="2026-01-01T00:00:00+00:00", harness=LMMS_EVAL,
        answered_with=(f"../{other}",) if is_shared else (),
    )
    (folder / RECORD_NAME).write_text(record.model_dump_json(exclude={"made_from"}))
    journal = Journal(folder, StoredAnswer, "answers", rank=0)
    for number in range(3):
        text = "other" if is_shared and row in sys.argv and number == 2 else "same"
        account = TokenAccount(
            visual_tokens=4, visual_tokens_uncompressed=4, visual_tokens_per_layer=(4,), text_tokens=1,
            generated_tokens=1,
        )
        took = AnswerSeconds(reading=0.1, encoding=0.2, own=0.1 + is_shared, rows=1 + is_shared)
        journal.append(
            StoredAnswer(
                task="tiny_read", split="test", doc_id=number, repeat=0, asked="a-b", text=text, seconds=took,
                account=account,
            )
        )
Path("runs/tiny/passes").mkdir()
"""


@pytest.fixture
def program(tmp_path):
    """The command line of the program, with words before its arguments."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return lambda *words: (sys.executable, str(file), *words)


def test_a_table_is_filled_in_both_ways_and_read_from_its_journals(program):
    measured = pass_table.measure(None, 1, "cpu", program())
    assert (measured["rows"], measured["documents"], measured["equal_answers"]) == (["vanilla", "vico"], 3, 6)
    assert [measured[way]["passes"] for way in ("separate", "shared")] == [2, 1]
    assert measured["separate"]["stage_s"]["encoding"] == [pytest.approx(6 * 0.2)]
    assert measured["shared"]["stage_s"]["encoding"] == [pytest.approx(6 * 0.2 / 2)]
    record = {
        "load": "table",
        "processor": "here",
        "goal": 0.6,
        "ratio": 0.5,
        "versions": {},
        "date": "",
        "command": "",
    }
    assert "and all documents: 1 passes, and 2 separate rows" in passes.readme({"try": measured | record})


def test_a_table_whose_answers_differ_is_no_record(program):
    with pytest.raises(AnswersDiffer, match=r"vico answers \('tiny_read/test/2'"):
        pass_table.measure(None, 1, "cpu", program("vico"))


def test_a_run_that_fails_or_shares_nothing_is_no_measurement(program):
    with pytest.raises(pass_table.CommandFailed, match="exited with status 1: no such row"):
        pass_table.fill(program("broken"))
    with pytest.raises(pass_table.CommandFailed, match="answered 2 rows in 2 passes; expected rows that share"):
        pass_table.measure(None, 1, "cpu", program("never"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--load", "everything"), "'everything' is not one of table, sweep, films"),
        (("--load", "sweep", "--size", "7b"), "'7b' is not one of small, 0.6b, 8b"),
        (("--limit", "0"), "greater than or equal to 1"),
    ],
)
def test_wrong_options_are_wrong_usage(benchmark, options, message):
    status, err = benchmark("passes.py", *options)
    assert status == 2
    assert message in err
