"""What an encoder is given in portions, and what becomes of them when memory runs out."""

import pytest
import torch

from vico_eval.families.portions import Portions


def spans(portions, sizes, room=100):
    """The slices of sizes that were tried, and the results."""
    tried = []

    def encode(span):
        tried.append(sizes[span])
        if sum(sizes[span]) > room:
            raise torch.OutOfMemoryError("full")
        return sizes[span]

    return tried, portions.encode(sizes, encode)


def test_items_are_taken_together_up_to_the_limit():
    tried, made = spans(Portions(10, "patches"), [4, 6, 1, 12, 3])
    assert tried == made == [[4, 6], [1], [12], [3]]


def test_portions_are_smaller_for_good_when_memory_runs_out():
    portions = Portions(10, "patches")
    tried, made = spans(portions, [3, 3, 3, 1], room=6)
    assert tried == [[3, 3, 3, 1], [3], [3], [3, 1]]
    assert made == [[3], [3], [3, 1]]
    assert spans(portions, [2, 2, 2])[1] == [[2, 2], [2]]


def test_one_item_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        spans(Portions(10, "patches"), [2, 9], room=8)
