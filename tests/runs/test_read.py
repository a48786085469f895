"""Runs of both versions of the format, and what of them is read by whom."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vico_eval.errors import ReportError
from vico_eval.runs.read import read_accounts, read_record, read_request, read_run, unfinished_tasks
from vico_eval.runs.schema import RunRequest, TokenAccount
from vico_eval.runs.write import RunFolder, write_request

VERSION_1 = Path(__file__).parents[1] / "report" / "data" / "vico_eval_vanilla"


def copy_record(folder, **changes):
    record = json.loads((VERSION_1 / "record.json").read_text()) | changes
    (folder / "record.json").write_text(json.dumps(record))


def account(**changes):
    counts = {"visual_tokens": 4, "visual_tokens_uncompressed": 4, "visual_tokens_per_layer": (4, 4)}
    return TokenAccount(**{**counts, "text_tokens": 3, "generated_tokens": 2, **changes})


def test_a_harness_that_nobody_reads_is_named(tmp_path):
    copy_record(tmp_path, harness="other-eval")
    with pytest.raises(ReportError, match=r"names harness 'other-eval'; expected lmms-eval or VLMEvalKit"):
        read_run(tmp_path)


def test_a_run_of_version_1_is_continued_as_one_of_version_2(tmp_path):
    copy_record(tmp_path)
    old = read_record(tmp_path)
    assert (old.version, old.commits) == (1, ())
    now = old.model_copy(update={"version": 2, "commits": ("62b8cd5",), "started": old.started.replace(year=2027)})
    lines = [line for line in (VERSION_1 / "answers.rank0.jsonl").read_text().splitlines() if line]
    (tmp_path / "answers.rank0.jsonl").write_text("".join(f"{line}\n" for line in lines))
    run = RunFolder(tmp_path, now, resume=True)
    run.write_record()
    assert len(run.answers) == len({(line["task"], line["doc_id"]) for line in map(json.loads, lines)})
    new = read_record(tmp_path)
    assert (new.version, new.commits, new.started, new.continued) == (2, ("62b8cd5",), old.started, (now.started,))


def test_commits_of_a_run_that_goes_on_are_kept_once_each(tmp_path):
    copy_record(tmp_path)
    record = read_record(tmp_path)
    for commits in (("a",), ("b-dirty",), ("a",)):
        RunFolder(tmp_path, record.model_copy(update={"version": 2, "commits": commits})).write_record()
    assert read_record(tmp_path).commits == ("a", "b-dirty")


def test_a_request_is_read_as_it_was_written_and_one_of_version_1_too(tmp_path):
    request = RunRequest(arguments=("--model", "x"), versions={"torch": "2"}, checkpoints={"c": "d"}, cells={"e": "f"})
    write_request(tmp_path, request)
    assert read_request(tmp_path) == request
    old = {"arguments": ["--model", "x"], "inputs": "0" * 64, "cells": {"e": "f"}}
    (tmp_path / "request.json").write_text(json.dumps(old))
    unknown = {"version": 1, "versions": None, "checkpoints": None}
    assert read_request(tmp_path) == request.model_copy(update=unknown)
    assert read_request(tmp_path / "nowhere") is None


def test_accounts_are_the_last_of_each_document_and_say_what_is_left(tmp_path):
    assert read_accounts(tmp_path) is None
    copy_record(tmp_path)
    run = RunFolder(tmp_path, read_record(tmp_path))
    for number, tokens in ((0, 4), (1, 4), (0, 2)):
        run.add((f"read/test/{number}", 0, "so"), "", account(visual_tokens=tokens))
    run.add_failure(("read/test/2", 0, "so"), "no picture")
    accounts = read_accounts(tmp_path)
    assert {key: one.visual_tokens for key, one in accounts["read"].items()} == {("test", 0): 2, ("test", 1): 4}
    assert unfinished_tasks(tmp_path, accounts) == {"read": (3, None)}
    results = {"n-samples": {"read": {"original": 9, "effective": 3}}, "config": {}}
    (tmp_path / "20260101_000000_results.json").write_text(json.dumps(results))
    assert unfinished_tasks(tmp_path, accounts) == {}


def test_counts_of_tiles_and_of_selections_are_details_with_a_default():
    plain = account()
    assert (plain.tiles, plain.compressed_tiles, plain.merged_tokens) == (0, 0, 0)
    assert plain.visual_tokens_before_selection is None
    assert TokenAccount.model_validate(plain.to_dict()) == plain


def test_reading_a_run_imports_neither_torch_nor_the_other_harness():
    code = (
        "import sys; from pathlib import Path; import vico_eval.runs.write; from vico_eval.runs.read import read_run; "
        "read_run(Path(sys.argv[1])); print(*sorted(name for name in sys.modules "
        "if name in ('torch', 'transformers', 'lmms_eval') or name.startswith('vico_eval.harnesses.')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(VERSION_1)], capture_output=True, text=True, check=True)
    assert "vico_eval.harnesses.lmms_eval.results" in done.stdout
    assert not [word for word in done.stdout.split() if "vlmevalkit" in word or "harnesses" not in word]
