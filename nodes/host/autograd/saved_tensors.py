"""Support for models that overwrite tensors which their own graph has saved for the backward pass.

PyTorch offers `allow_mutation_on_saved_tensors` for this. It identifies tensors by address and version, so it misses a
write through a view that starts elsewhere in the same memory, and can mistake one tensor for another that had its
address before: the gradient is then silently wrong. Here the memory itself is watched, and whatever is saved keeps that
memory alive.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


class _Saved:
    """A tensor as it was when saved: the tensor itself until its memory is written to, then a copy."""

    __slots__ = ("value", "__weakref__")

    def __init__(self, tensor: Tensor) -> None:
        self.value = tensor.detach()


class _CopyBeforeWrite(TorchDispatchMode):
    """Sees every operation before it runs, and copies saved tensors that it is about to overwrite."""

    def __init__(self) -> None:
        super().__init__()
        self._saved: dict[int, weakref.WeakSet[_Saved]] = {}  # by memory
        self._written_arguments: dict[object, tuple[int | str, ...]] = {}  # by operation

    def pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        memory = _memory(tensor)
        if memory is not None:
            self._saved.setdefault(memory, weakref.WeakSet()).add(saved)
        return saved

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        written = self._written_arguments.get(func)
        if written is None:
            written = self._written_arguments[func] = _written_arguments(func)
        for place in written:
            value = kwargs.get(place) if isinstance(place, str) else args[place] if place < len(args) else None
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(tensor, Tensor):
                    self._copy_saved(tensor)
        return func(*args, **kwargs)

    def _copy_saved(self, tensor: Tensor) -> None:
        memory = _memory(tensor)
        if memory is None:
            return
        for saved in self._saved.pop(memory, ()):
            saved.value = saved.value.clone()


def _written_arguments(func: Any) -> tuple[int | str, ...]:
    """Position or keyword of each argument that an operation writes to."""
    return tuple(
        argument.name if argument.kwarg_only else index
        for index, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def _memory(tensor: Tensor) -> int | None:
    """Identifies a tensor's memory for as long as it exists; None for tensors that have none of their own."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return None


def _value(saved: _Saved) -> Tensor:
    return saved.value


@contextlib.contextmanager
def copy_before_write() -> Iterator[None]:
    """For an evaluation and its backward pass: what the graph saved keeps its value, whoever writes to it."""
    mode = _CopyBeforeWrite()
    with saved_tensors_hooks(mode.pack, _value), mode:
        yield
