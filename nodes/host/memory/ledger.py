"""Counts the bytes that a differentiated evaluation keeps for its backward pass."""

from __future__ import annotations

from torch import Tensor


class Held:
    """A tensor that is kept, counted as long as this object lives."""

    __slots__ = ("tensor", "nbytes", "_ledger", "_key", "__weakref__")

    def __init__(self, tensor: Tensor, ledger: Ledger, key: int | None, nbytes: int):
        self.tensor, self.nbytes, self._ledger, self._key = tensor, nbytes, ledger, key

    def __del__(self):
        if self._key is not None:
            self._ledger._drop(self._key)


class Ledger:
    """live: bytes kept now; peak: the most since it was made. A storage that several tensors share counts once."""

    def __init__(self):
        self.live = self.peak = 0
        self._storages: dict[int, list[int]] = {}  # storage -> [holders, bytes]

    def hold(self, tensor: Tensor, on_device: bool = True) -> Held:
        """Keep a tensor. on_device False: it lies elsewhere and is not counted."""
        size = storage_size(tensor)
        if not on_device:
            return Held(tensor, self, None, size)
        key = tensor.untyped_storage()._cdata  # not its address: tensors of zero bytes share that
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


def storage_size(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
