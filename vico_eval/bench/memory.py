"""Memory that a piece of work takes at its peak."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Bytes that `work` takes at its peak beyond what was taken before it; what it returns is part of them.

    On CUDA what PyTorch's allocator had given out. On the CPU the same, as PyTorch's profiler sees it, and the peak of
    NumPy's arrays on top, which may have been at another moment. Kernels' own buffers are in neither.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    tracemalloc.start()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            held = work()
        arrays = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    del held
    return _tensors(profiled) + arrays


def _tensors(profiled: profile) -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    taken = [int(event["args"]["Total Allocated"]) for event in memory]
    if not taken:
        return 0
    # The count goes on from what earlier profiled work has left.
    return max(0, max(taken) - (taken[0] - int(memory[0]["args"]["Bytes"])))
