"""Peaks of work whose memory is known."""

import numpy as np
import torch

from vico_eval.bench.memory import peak_bytes

MIB = 2**20


def test_a_peak_is_what_was_held_at_once():
    def work():
        first = torch.zeros(MIB)  # 4 MiB
        second = torch.zeros(2 * MIB)  # 12 MiB together
        del second
        return first + 1  # 8 MiB

    assert 12 * MIB <= peak_bytes(work, "cpu") < 12.5 * MIB


def test_memory_taken_before_does_not_count_and_what_work_leaves_does_not_spoil_the_next():
    held = [torch.zeros(4 * MIB)]
    peak_bytes(lambda: held.append(torch.zeros(8 * MIB)), "cpu")
    assert 4 * MIB <= peak_bytes(lambda: torch.zeros(MIB), "cpu") < 4.5 * MIB


def test_numpys_arrays_count_too():
    assert 8 * MIB <= peak_bytes(lambda: np.ones(MIB), "cpu") < 8.5 * MIB


def test_work_without_tensors_has_no_peak():
    assert peak_bytes(lambda: None, "cpu") < MIB
