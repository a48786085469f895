"""Copies between devices; each one makes the host wait until the device has finished all earlier work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

CPU = torch.device("cpu")


def moved(device: torch.device, *lists: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors of each list on a device.

    Tensors of one device and dtype go in one copy, whatever list they are in. Those already on the device are returned
    as they are.
    """
    found = [list(tensors) for tensors in lists]
    strangers: dict[tuple[torch.device, torch.dtype], list[tuple[int, int]]] = defaultdict(list)
    for number, tensors in enumerate(lists):
        for place, tensor in enumerate(tensors):
            if tensor.device != device:
                strangers[tensor.device, tensor.dtype].append((number, place))
    for alike in strangers.values():
        given = [lists[number][place] for number, place in alike]
        # A single tensor, which may be large, is not copied twice.
        joined = torch.cat([tensor.flatten() for tensor in given]) if len(given) > 1 else given[0].flatten()
        copied = joined.to(device)
        parts = copied.split([tensor.numel() for tensor in given])
        for (number, place), tensor, part in zip(alike, given, parts, strict=True):
            found[number][place] = part.view(tensor.shape)
    return found
