"""Memory that tensors take on this process's accelerators."""

from __future__ import annotations

import torch


def forget_peak() -> None:
    """Have `peak_bytes` count from now on."""
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def peak_bytes() -> int | None:
    """The most since `forget_peak`, weights included, by PyTorch's allocator; of several accelerators the sum.

    None without CUDA: the most that a process has had resident says little of a model on a CPU, whose weights may be
    files in memory, and goes down only with the process.
    """
    if not torch.cuda.is_initialized():
        return None
    return sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
