"""Counts the bytes that a differentiated evaluation keeps for its backward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Held:
    """A tensor that is kept; it counts for as long as this object lives."""

    __slots__ = ("tensor", "nbytes", "_ledger", "_key", "__weakref__")

    def __init__(self, tensor: Tensor, ledger: Ledger, key: int | None, nbytes: int) -> None:
        self.tensor, self.nbytes, self._ledger, self._key = tensor, nbytes, ledger, key

    def __del__(self) -> None:
        if self._key is not None:
            self._ledger._drop(self._key)


class Ledger:
    """Counts storages; one that several tensors share counts once.

    Attributes:
        live: bytes kept now.
        peak: the most bytes kept since the ledger was made.
    """

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._storages: dict[int, list[int]] = {}  # storage -> [holders, bytes]

    def hold(self, tensor: Tensor, on_device: bool = True) -> Held:
        """Keep a tensor. One that is not on the device is not counted."""
        size = tensor.untyped_storage().nbytes()
        if not on_device:
            return Held(tensor, self, None, size)
        key = tensor.untyped_storage()._cdata  # not its address, which all tensors of zero bytes share
        entry = self._storages.setdefault(key, [0, size])
        if entry[0] == 0:
            self.live += size
            self.peak = max(self.peak, self.live)
        entry[0] += 1
        return Held(tensor, self, key, size)

    def _drop(self, key: int) -> None:
        entry = self._storages[key]
        entry[0] -= 1
        if entry[0] == 0:
            self.live -= entry[1]
            del self._storages[key]


class SavedTensorCounter:
    """Saved-tensor hooks that keep tensors as autograd would, and count them.

    Attributes:
        size: bytes of the storages that nothing else held when they were saved.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.size = 0
        self._ledger = ledger

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, tensor: Tensor) -> tuple[Any, int | None]:
        if type(tensor) is not Tensor or tensor.is_inference():
            return tensor, None
        value, before = tensor.detach(), self._ledger.live
        held = self._ledger.hold(value)
        self.size += self._ledger.live - before
        return held, value._version

    @staticmethod
    def _unpack(packed: tuple[Any, int | None]) -> Tensor:
        held, version = packed
        if not isinstance(held, Held):
            return held
        if held.tensor._version != version:  # PyTorch's own check is off where hooks are used
            raise RuntimeError("a tensor needed for the gradient has been modified by an inplace operation")
        return held.tensor
