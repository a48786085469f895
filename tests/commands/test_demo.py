from vico_eval import paths
from vico_eval.commands.demo import count_documents, num_cores


def test_the_built_in_benchmark_is_large_enough_for_its_error_bars():
    assert count_documents(paths.tasks_dir() / "tiny", limit=None) >= 1500


def test_a_limit_counts_for_each_task():
    assert count_documents(paths.tasks_dir() / "tiny", limit=2) == 9 * 2


def test_there_is_a_core():
    assert num_cores() >= 1
