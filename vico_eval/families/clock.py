"""Time on a device, whose work may still be under way when the call that started it returns."""

from __future__ import annotations

import time

import torch


def seconds_on(device: torch.device) -> float:
    """Now, once the device has done all that it was given; only differences mean anything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
