"""Which rows are scored when the documents of some shards failed; the processes only pretend."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from rich.console import Console

from vico_eval.commands.work import sharding
from vico_eval.commands.work.failures import Failure
from vico_eval.commands.work.goals import Goal
from vico_eval.commands.work.run_folders import prepare
from vico_eval.runs.shards import Shard, ShardTask, read_shards, write_shard

from .fakes import DOC, READ, World, check, make_run, read

FIRST, SECOND = Shard(1, 2), Shard(2, 2)


@dataclass
class Answering:
    """Stands for `answer`: asks what is left, without documents; those of `bad` fail."""

    bad: set[tuple[str, str, str]]
    """Run, benchmark and shard."""

    def __call__(self, table, runs, left, goal, console, claim=None):
        if claim is not None:
            with claim:
                return self.ask(runs, left, goal)
        return self.ask(runs, left, goal)

    def ask(self, runs, left, goal):
        failures = []
        for run in runs:
            prepare(run, read(), World(), fresh=False)
            for cell in left[run.name]:
                bad = [shard for name, benchmark, shard in self.bad if (name, benchmark) == (run.name, cell.benchmark)]
                if goal.shard is not None:
                    failed = int(str(goal.shard) in bad)
                    write_shard(run.folder, goal.shard, {cell.results[0]: ShardTask(documents=failed, failed=failed)})
                    words = f"1 of 1 documents of shard {goal.shard} have no answer." if failed else ""
                else:
                    words = f"{len(bad)} documents have no answer." if bad else ""
                    (run.folder / cell.benchmark).write_text(words)
                failures += [Failure(run, cell, words)] if words else []
        return failures


@pytest.fixture
def table(tmp_path, monkeypatch):
    """`random` takes the ratio of `vico`."""
    monkeypatch.setattr(sharding, "check_cells", check)
    monkeypatch.setattr(sharding, "Goal", lambda *given: Goal(*given) if given else Goal(check))
    monkeypatch.setattr("vico_eval.commands.work.table.check_outputs", lambda table: None)
    runs = (
        make_run(tmp_path, "random", after="vico", cells=(READ, DOC)),
        make_run(tmp_path, "vico", cells=(READ, DOC)),
        make_run(tmp_path, "vanilla", cells=(READ, DOC)),
    )
    return SimpleNamespace(runs=runs, inputs=read())


@pytest.fixture
def go(table, monkeypatch, capsys):
    """Runs a shard of the table; what failed, in words, whether all is scored, and what was said."""

    def ask(shard, *bad):
        monkeypatch.setattr(sharding, "answer", Answering(set(bad)))
        failures, is_complete = sharding.answer_shard(table, shard, Console(width=500))
        told = [f"{failure.run.name} {failure.cell.benchmark}: {failure.reason}" for failure in failures]
        return told, is_complete, capsys.readouterr().out

    return ask


BAD = ("vanilla", "Doc", "1/2")


def test_the_last_shard_scores_a_row_in_which_documents_failed(go, table):
    told, is_complete, said = go(FIRST, BAD)
    assert told == ["vanilla Doc: 1 of 1 documents of shard 1/2 have no answer."]
    assert not is_complete
    assert "Incomplete: vico, vanilla; missing shards 2/2." in said
    told, is_complete, said = go(SECOND, BAD)
    assert told == ["vanilla Doc: 1 documents have no answer."]  # the row's own words, once
    assert "All shards of vico, vanilla are complete." in said
    assert not is_complete  # what waits for vico has only one shard of the two
    assert go(SECOND, BAD)[:2] == (["vanilla Doc: 1 documents have no answer."], False)
    told, is_complete, said = go(FIRST, BAD)
    assert told == ["vanilla Doc: 1 documents have no answer."]
    assert is_complete  # the table is written, and says what failed
    told, is_complete, said = go(FIRST)
    assert (told, is_complete) == ([], True)
    assert read_shards(table.runs[2].folder)[FIRST]["doc"].failed == 0


def test_a_row_that_draws_on_a_failed_one_is_answered_where_it_can_be(go, table):
    bad = ("vico", "Doc", "1/2")
    without = "random Doc: it needs the result of vico on Doc, which is incomplete."
    assert go(FIRST, bad)[:2] == (["vico Doc: 1 of 1 documents of shard 1/2 have no answer."], False)
    assert go(SECOND, bad)[0] == ["vico Doc: 1 documents have no answer.", without]
    for shard in (FIRST, SECOND):
        told, is_complete, _ = go(shard, bad)
        assert told[-1] == without
    assert is_complete
    assert (table.runs[0].folder / "Read").exists()
    assert not (table.runs[0].folder / "Doc").exists()
    told, is_complete, said = go(FIRST)
    assert (told, is_complete) == ([], False)
    assert "Incomplete: random; missing shards 2/2." in said
    assert go(SECOND)[:2] == ([], True)
    assert (table.runs[0].folder / "Doc").exists()
