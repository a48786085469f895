"""Time on a device, whose calls may return before their work is finished."""

from __future__ import annotations

import time

import torch


def seconds_on(device: torch.device) -> float:
    """Return the time after the device has finished its work, in seconds; only differences are meaningful."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
