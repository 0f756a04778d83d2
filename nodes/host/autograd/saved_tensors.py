"""Models that overwrite tensors which their own graph has saved for backward.

PyTorch has `allow_mutation_on_saved_tensors` for this. It tells tensors apart by address and version, so a write
through a view that begins elsewhere in the same memory goes unnoticed, and one tensor can be taken for another that had
its address before: the gradient is then wrong without a word. Here it is the memory itself that is watched, and what
is saved keeps that memory in being.
"""

from __future__ import annotations

import contextlib
import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _Saved:
    """A tensor as it was when it was saved: the tensor itself until its memory is written to, then a copy."""

    __slots__ = ("value", "__weakref__")

    def __init__(self, tensor: Tensor):
        self.value = tensor.detach()


class _CopyBeforeWrite(TorchDispatchMode):
    """Sees every operation before it runs, and copies what is saved and about to be overwritten."""

    def __init__(self):
        super().__init__()
        self.saved: dict[int, weakref.WeakSet[_Saved]] = {}  # by memory
        self._written: dict[object, tuple[int | str, ...]] = {}  # which arguments an operation writes to

    def pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        key = _memory(tensor)
        if key is not None:
            self.saved.setdefault(key, weakref.WeakSet()).add(saved)
        return saved

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        written = self._written.get(func)
        if written is None:
            written = self._written[func] = tuple(
                argument.name if argument.kwarg_only else index
                for index, argument in enumerate(func._schema.arguments)
                if argument.alias_info is not None and argument.alias_info.is_write
            )
        for place in written:
            found = kwargs.get(place) if isinstance(place, str) else args[place] if place < len(args) else None
            for tensor in found if isinstance(found, (list, tuple)) else (found,):
                if isinstance(tensor, Tensor):
                    self._about_to_write(tensor)
        return func(*args, **kwargs)

    def _about_to_write(self, tensor: Tensor) -> None:
        for saved in self.saved.pop(_memory(tensor), ()):
            saved.value = saved.value.clone()


def _memory(tensor: Tensor) -> int | None:
    """What identifies a tensor's memory for as long as it exists; None for tensors that have none of their own."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return None


def _value(saved: _Saved) -> Tensor:
    return saved.value


@contextlib.contextmanager
def copy_before_write():
    """For an evaluation and its backward pass: what the graph has saved stays as it was, whoever writes to it."""
    mode = _CopyBeforeWrite()
    with torch.autograd.graph.saved_tensors_hooks(mode.pack, _value), mode:
        yield
