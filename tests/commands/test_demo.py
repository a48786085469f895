import pytest

from vico_eval import paths
from vico_eval.commands.demo import checkpoint_folders, count_documents, num_cores
from vico_eval.commands.plan import PlannedRun
from vico_eval.errors import CheckpointError


def planned(*checkpoints):
    return PlannedRun(name="n", system="s", title="t", folder=paths.models_dir(), command=(), checkpoints=checkpoints)


def test_the_built_in_benchmark_is_large_enough_for_its_error_bars():
    assert count_documents(paths.tasks_dir() / "tiny", limit=None) >= 1500


def test_a_limit_counts_for_each_task():
    assert count_documents(paths.tasks_dir() / "tiny", limit=2) == 9 * 2


def test_there_is_a_core():
    assert num_cores() >= 1


def test_only_the_checkpoints_of_the_chosen_rows_are_asked_for():
    folders = checkpoint_folders([planned("vico-tiny-base"), planned("vico-tiny-base", "vico-tiny")], "train")
    assert [folder.name for folder in folders] == ["vico-tiny-base", "vico-tiny"]


def test_a_checkpoint_that_is_not_trained_yet_comes_with_the_command_that_trains_it():
    with pytest.raises(CheckpointError, match=r"no finished checkpoint tiny-x\. Train it \(`vico-eval train x`\)"):
        checkpoint_folders([planned("vico-tiny-base"), planned("tiny-x")], "vico-eval train x")
