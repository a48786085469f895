"""A vision encoder's work in portions that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache

from vico_eval.logs import logger

T = TypeVar("T")


class Portions:
    """Splits an encoder's input into portions, which become permanently smaller when memory runs out.

    Args:
        most: maximum size of a portion, which bounds the encoder's memory, not the batch.
        unit: the unit of sizes, for the warning.
    """

    def __init__(self, most: int, unit: str) -> None:
        self.most = most
        self._unit = unit

    def encode(self, sizes: Sequence[int], encode: Callable[[slice], T]) -> list[T]:
        """Return the result of each portion, in order.

        Args:
            sizes: sizes of the items, in units. A portion has at least one item.
            encode: encodes the items of a slice.

        Raises:
            torch.OutOfMemoryError: a single item doesn't fit.
        """
        made: list[T] = []
        start = 0
        while start < len(sizes):
            span = slice(start, self._end(sizes, start))
            if self._fits(span, sizes, encode, made):
                start = span.stop
        return made

    def _end(self, sizes: Sequence[int], start: int) -> int:
        end, size = start + 1, sizes[start]
        while end < len(sizes) and size + sizes[end] <= self.most:
            size += sizes[end]
            end += 1
        return end

    def _fits(self, span: slice, sizes: Sequence[int], encode: Callable[[slice], T], made: list[T]) -> bool:
        """Add a portion's result; return False if it doesn't fit, after which portions are smaller."""
        try:
            made.append(encode(span))
        except torch.OutOfMemoryError:
            if span.stop - span.start == 1:
                raise
        else:
            return True
        # The exception kept the attempt's tensors alive; from here on they are free.
        clear_device_cache(garbage_collection=True)
        size = sum(sizes[span])
        self.most = size // 2
        logger.warning(
            f"the vision encoder ran out of memory with {size} {self._unit}; from now on it gets at most {self.most}"
        )
        return False
