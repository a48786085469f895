"""Memory of tensors on this process's accelerators."""

from __future__ import annotations

import torch


def forget_peak() -> None:
    """Restart the measurement of `peak_bytes`."""
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def peak_bytes() -> int | None:
    """Return the peak since `forget_peak`, including weights, from PyTorch's allocator, summed over accelerators.

    None without CUDA: a process's peak resident memory says little about a model on a CPU, whose weights may be
    memory-mapped files, and can't be reset.
    """
    if not torch.cuda.is_initialized():
        return None
    return sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
