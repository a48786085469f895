"""What makes answers stale, and what does not."""

import subprocess
from datetime import datetime, timezone

import pytest

from vico_eval.runs.schema import Checkpoint, RunRecord, RunRequest
from vico_eval.runs.staleness import commit, completed, other_conditions, versions, why_stale

STARTED = datetime(2026, 1, 1, tzinfo=timezone.utc)

RECORD = RunRecord(
    version=2,
    system="vico",
    title="ViCO",
    command=(),
    versions={"python": "3.11.9", "vico_eval": "0.1.0", "torch": "2.15.0"},
    commits=("1c0540b",),
    checkpoint=Checkpoint(name="vico-tiny", path="models/vico-tiny", sha256="tensors:ab"),
    donor=None,
    method="vico",
    method_args={"absolute_threshold": 0.5},
    dtype="float32",
    attention="sdpa",
    device="cpu",
    num_processes=1,
    started=STARTED,
    harness="lmms-eval",
)

REQUEST = RunRequest(
    arguments=("--model", "vico_internvl"),
    versions=RECORD.versions,
    checkpoints={"vico-tiny": "ab"},
    cells={"DocVQA": "cd"},
)


def of_versions(**changes):
    return {"versions": {**RECORD.versions, **changes}}


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"commits": ("62b8cd5-dirty",)}, ()),  # a comment was edited
        (of_versions(python="3.11.10"), ()),
        ({"device": "cuda", "num_processes": 8, "command": ("again",)}, ()),
        (of_versions(vico_eval="0.2.0"), ("versions",)),
        (of_versions(av="15.0"), ("versions",)),
        ({"checkpoint": Checkpoint(name="vico-tiny", path="models/vico-tiny", sha256="tensors:cd")}, ("checkpoint",)),
        ({"method_args": {"absolute_threshold": 0.6}, "dtype": "bfloat16"}, ("method_args", "dtype")),
    ],
)
def test_a_run_goes_on_under_the_same_conditions_only(changes, different):
    assert other_conditions(RECORD, RECORD.model_copy(update=changes)) == different


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        (of_versions(python="3.12.1"), None),
        ({"cells": {"DocVQA": "cd", "ChartQA": "ef"}}, None),  # a benchmark more
        ({"arguments": ("--model", "vanilla_internvl")}, "its arguments differ"),
        (of_versions(vico_eval="0.2.0"), "versions have changed: vico_eval was 0.1.0 and is 0.2.0"),
        (of_versions(av="15.0"), "versions have changed: av was missing and is 15.0"),
        ({"checkpoints": {"vico-tiny": "ba"}}, "checkpoints have changed: vico-tiny"),
        ({"cells": {"DocVQA": "dc"}}, "the tasks of DocVQA have changed"),
    ],
)
def test_finished_answers_are_kept_until_something_that_decides_them_changes(changes, reason):
    assert why_stale(REQUEST, REQUEST.model_copy(update=changes)) == reason


def test_a_request_of_version_1_holds_if_versions_are_the_records_and_weights_older_than_the_run():
    old = RunRequest(version=1, arguments=REQUEST.arguments, versions=None, checkpoints=None, cells=REQUEST.cells)
    before, after = STARTED.timestamp() - 1, STARTED.timestamp() + 1
    assert why_stale(completed(old, RECORD, REQUEST, before), REQUEST) is None
    assert why_stale(completed(old, RECORD, REQUEST, after), REQUEST) == "checkpoints have changed: vico-tiny"
    newer = RECORD.model_copy(update=of_versions(torch="2.16.0"))
    assert "torch was 2.16.0 and is 2.15.0" in why_stale(completed(old, newer, REQUEST, before), REQUEST)


def test_this_package_and_its_libraries_have_versions():
    found = versions()
    assert {"python", "vico_eval", "torch", "transformers"} <= found.keys()
    assert all(found.values())


def test_a_checkout_has_a_commit_and_what_is_installed_in_one_has_none(tmp_path):
    def git(*arguments):
        user = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *user, *arguments], check=True, capture_output=True)

    package, installed = tmp_path / "package", tmp_path / ".venv" / "package"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    assert commit(package) is None
    git("init")
    git("add", "package")
    git("commit", "-m", "first")
    clean = commit(package)
    assert len(clean) >= 7
    (package / "__init__.py").write_text("# a comment\n")
    assert commit(package) == f"{clean}-dirty"
    assert commit(installed) is None
