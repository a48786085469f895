"""Accelerators that are not there: their tensors keep their values on the CPU and refuse what a real device would.

Inside `emulated`, a tensor can be moved to `ACCELERATOR` or `SECOND`, and what is computed of it lies there too. An
operation on tensors of several devices is an error, as on a GPU; a moment when the host has to wait for a device is
counted. The device type is one that PyTorch knows and this build has no kernels for, so nothing can slip by.

What is not emulated: generators of random numbers on the device (sampling), streams, and memory.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

KIND = "ipu"
ACCELERATOR, SECOND = f"{KIND}:0", f"{KIND}:1"
CPU = torch.device("cpu")

aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
WAITED_FOR = {
    *(aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default),
    *(aten.masked_select.default, aten.bincount.default, aten.repeat_interleave.Tensor, aten._unique2.default),
}
"""Operations whose result, or its shape, depends on values, which the host has to know."""

READS = {getattr(Tensor, name) for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__")}


class DeviceTensor(Tensor):
    """A tensor that says it lies on an accelerator."""

    values: Tensor
    """On the CPU."""

    place: torch.device

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor, place: torch.device | None = None, requires_grad: bool = False) -> DeviceTensor:
        if isinstance(values, DeviceTensor):
            values._is_param = True  # accelerate makes parameters anew by calling their class
            return values
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=place,
        )
        made.values, made.place = values, place
        return made

    def __repr__(self) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype}, {self.place})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), named=None):
        raise RuntimeError(f"{operation} on an emulated accelerator's tensor, outside of the emulation")


class Emulation(TorchDispatchMode):
    """Computes what operations make of tensors on emulated devices."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """How often the host waited for a device, by the line of this package and the one of a library."""

        self.largest: dict[torch.device, int] = {}
        """Bytes of the largest tensor that was made on each device, the CPU included."""

    def wait(self) -> None:
        """Count that the host waits here."""
        self.waits[_place_in_code()] += 1

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        # Tensors of inference mode would refuse what a wrapper does with them.
        with torch.inference_mode(False), torch.no_grad():
            made = self._compute(operation, arguments, dict(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                place = _place(tensor)
                self.largest[place] = max(self.largest.get(place, 0), tensor.nbytes)
        return made

    def _compute(self, operation, arguments, named):
        if _has_parts(operation):
            with self:
                return operation.decompose(*arguments, **named)
        given = [entry for entry in tree_leaves((arguments, named)) if isinstance(entry, Tensor)]
        places = {tensor.place for tensor in given if isinstance(tensor, DeviceTensor)}
        is_move = operation in (aten._to_copy.default, aten.copy_.default)
        if places and not is_move:
            self._check(operation, arguments, given, places)
        target = next(iter(places), CPU)
        if is_move and target.type != "cpu":
            goes_to = arguments[0].device if operation is aten.copy_.default else named.get("device")
            if goes_to is not None and torch.device(goes_to).type == "cpu":
                self.wait()
        if named.get("device") is not None:
            target, named["device"] = torch.device(named["device"]), CPU
            named.pop("pin_memory", None)
        own_arguments, own_named = tree_map(_values, (arguments, named))
        made = operation(*own_arguments, **own_named)
        if operation._schema.is_mutable and isinstance(made, Tensor):
            return next(tensor for tensor in given if _values(tensor) is made)
        return made if target.type == "cpu" else tree_map(lambda one: _put(one, target), made)

    def _check(self, operation, arguments, given, places) -> None:
        # A number may come from anywhere, and an index from the CPU, which costs a copy.
        strangers = [tensor for tensor in given if not isinstance(tensor, DeviceTensor) and tensor.ndim]
        if operation in INDEXING:
            indices = [index for index in arguments[1] if index is not None]
            if any(index.dtype == torch.bool and isinstance(index, DeviceTensor) for index in indices):
                self.wait()
            if isinstance(arguments[0], DeviceTensor):
                strangers = [tensor for tensor in strangers if not any(tensor is index for index in indices)]
        if operation in WAITED_FOR:
            self.wait()
        if strangers or len(places) > 1:
            found = ", ".join(f"{tuple(tensor.shape)} on {_place(tensor)}" for tensor in given)
            raise RuntimeError(f"expected all tensors on one device, {operation} got {found}")


class _Calls(TorchFunctionMode):
    """What Python's binding answers by itself, without asking the dispatcher."""

    def __init__(self, emulation: Emulation) -> None:
        super().__init__()
        self._emulation = emulation

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = dict(named or {})
        if function is torch.tensor and named.get("device") is not None:
            place = torch.device(named.pop("device"))
            with torch.inference_mode(False):
                return (
                    _put(torch.tensor(*arguments, **named), place)
                    if place.type == KIND
                    else torch.tensor(*arguments, **named, device=place)
                )
        if function is Tensor.copy_ and any(isinstance(one, DeviceTensor) for one in arguments):
            return self._emulation.__torch_dispatch__(aten.copy_.default, types, arguments[:2])
        if arguments and isinstance(arguments[0], DeviceTensor):
            return self._of_tensor(function, arguments, named)
        return function(*arguments, **named)

    def _of_tensor(self, function, arguments, named):
        tensor = arguments[0]
        if function in READS:
            self._emulation.wait()
            return function(tensor.values)
        if function is Tensor.numpy:
            raise TypeError(f"a tensor on {tensor.place} can't become an array; copy it to the CPU first")
        if function is Tensor.data_ptr:
            return tensor.values.data_ptr()
        if function is Tensor.__invert__:
            return torch.bitwise_not(tensor)
        if function is Tensor.contiguous:
            return tensor if tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)
        if function in (Tensor.nonzero, torch.nonzero):
            self._emulation.wait()
            return self._on_values(tensor.place, function, tensor.values, **named)
        if function in (Tensor.__getitem__, Tensor.__setitem__):
            return self._index(function, *arguments)
        return function(*arguments, **named)

    def _index(self, function, tensor, index, *value):
        parts = index if isinstance(index, tuple) else (index,)
        indices = [part for part in parts if isinstance(part, DeviceTensor)]
        others = {part.place for part in (*indices, *value) if isinstance(part, DeviceTensor)} - {tensor.place}
        if others:
            raise RuntimeError(f"expected all tensors on one device, indexing one on {tensor.place} got {others}")
        if any(part.dtype == torch.bool or not part.ndim for part in indices):
            self._emulation.wait()
        return self._on_values(tensor.place, function, tensor.values, tuple(map(_values, parts)), *map(_values, value))

    @staticmethod
    def _on_values(place: torch.device, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return tree_map(lambda one: _put(one, place), function(*arguments, **named))


def _has_parts(operation: Any) -> bool:
    """Whether an operation is written in terms of others, which can be looked at one by one."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return composite not in operation.py_kernels and torch._C._dispatch_has_kernel_for_dispatch_key(
        operation.name(), composite.name
    )


def _place(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, DeviceTensor) else tensor.device


def _values(entry: Any) -> Any:
    return entry.values if isinstance(entry, DeviceTensor) else entry


def _put(entry: Any, place: torch.device) -> Any:
    return DeviceTensor(entry, place) if isinstance(entry, Tensor) else entry


def _place_in_code() -> str:
    """The innermost line of this package that is running, and of transformers where that was called from there."""
    frame, library = sys._getframe(2), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if "/vico_eval/" in file:
            return f"{file.rpartition('/vico_eval/')[2]}:{frame.f_lineno}{library}"
        if not library and "/transformers/" in file:
            library = f" in {file.rpartition('/transformers/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return library or "elsewhere"


@contextmanager
def emulated() -> Iterator[Emulation]:
    """Inside, there are two accelerators."""
    emulation = Emulation()
    with _Calls(emulation), emulation:
        yield emulation
