"""Peak memory of a computation."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Return the peak memory of `work` in bytes, beyond what was allocated before it; its return value is included.

    On CUDA this is the memory allocated by PyTorch. On the CPU it is the same according to PyTorch's profiler, plus the
    peak of NumPy's arrays, even if both peaks were at different times. Neither includes the kernels' own buffers.
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
    # The profiler's total includes memory that earlier profiled work still holds.
    return max(0, max(taken) - (taken[0] - int(memory[0]["args"]["Bytes"])))
