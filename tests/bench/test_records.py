"""The order and the end of measuring in rounds."""

from functools import partial

from vico_eval.bench.records import in_rounds


def test_rounds_run_everything_after_a_first_time_and_every_other_one_backwards():
    order = []

    def measure(name):
        order.append(name)
        return len(order)

    found = in_rounds({name: partial(measure, name) for name in "abc"}, rounds=3, minutes=1)
    assert "".join(order) == "abc" + "abc" + "cba" + "abc"
    assert found == {"a": [4, 9, 10], "b": [5, 8, 11], "c": [6, 7, 12]}


def test_one_round_is_finished_where_there_is_no_time():
    assert in_rounds({"a": lambda: 1}, rounds=5, minutes=0) == {"a": [1]}
