"""A small memory for tests: counts the bytes of all tensors that live, and fails allocations beyond a limit."""

from __future__ import annotations

import weakref
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LiveMemory(TorchDispatchMode):
    """While active, storages made by operations are counted until they are freed. live, peak: bytes; limit: an
    operation that would go beyond it raises PyTorch's out-of-memory error, as a device's allocator would, and frees
    what it has made. `elsewhere`: what is made inside that block lies in another memory."""

    def __init__(self, limit: float = float("inf")):
        super().__init__()
        self.limit, self.live, self.peak, self.failures = limit, 0, 0, 0
        self._known: set[int] = set()
        self._elsewhere = False

    @contextmanager
    def elsewhere(self):
        self._elsewhere = True
        try:
            yield
        finally:
            self._elsewhere = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata in before or storage._cdata in self._known or self._elsewhere:
                continue
            size = storage.nbytes()
            if self.live + size > self.limit:
                self.failures += 1
                raise torch.OutOfMemoryError(f"test: {self.live} of {self.limit} bytes are in use, no room for {size}")
            self._known.add(storage._cdata)
            self.live += size
            self.peak = max(self.peak, self.live)
            # The storage object keeps the memory's address reserved for as long as the finalizer has not run.
            weakref.finalize(storage, self._freed, storage._cdata, size)
        return out

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
