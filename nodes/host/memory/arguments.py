"""What a block was called with, kept so that it can be called again later, whatever happens to the originals."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from .ledger import Held, Ledger


class _Place:
    """Where a tensor was in the arguments."""

    __slots__ = ("index",)

    def __init__(self, index: int):
        self.index = index


class Copies:
    """Private copies of tensors, made once per evaluation for each tensor however many blocks are given it.

    store: puts a copy elsewhere (host memory), None where copies stay on their device.
    """

    def __init__(self, ledger: Ledger, store: Callable[[Tensor], Tensor] | None = None):
        self.ledger, self.store = ledger, store
        self._made: dict[int, tuple[weakref.ref, int, weakref.ref]] = {}

    def of(self, tensor: Tensor) -> tuple[Held, bool]:
        """(copy, whether it was made just now)."""
        original, version, held = self._made.get(id(tensor), (None, None, None))
        if original is not None and original() is tensor and version == tensor._version:
            known = held()
            if known is not None:
                return known, False
        data = tensor.detach()
        value = data.clone() if self.store is None else self.store(data)
        made = self.ledger.hold(value, on_device=self.store is None)
        self._made[id(tensor)] = (weakref.ref(tensor), tensor._version, weakref.ref(made))
        return made, True


class Arguments:
    """The arguments of one call. Tensors are copied, dicts, lists and tuples are copied, the rest is kept as it is.

    size: bytes of the copies that were made for this call.
    """

    def __init__(self, args: tuple, kwargs: dict, copies: Copies):
        self.size = 0
        self.callables: list[Callable] = []
        self._kept: list[tuple[Held | Tensor, torch.device, bool]] = []
        self._live: list[tuple[Tensor, int] | None] | None = []
        self._copies, self._memo = copies, {}
        self._tree = self._keep((args, kwargs))
        self._copies, self._memo = None, None

    def written(self) -> set[int]:
        """Places of the tensors that have been written to since. Call it once, right after the block's forward."""
        places = {i for i, live in enumerate(self._live) if live is not None and live[0]._version != live[1]}
        self._live = None
        return places

    def again(self, written: set[int]) -> tuple[tuple, dict]:
        """Fresh (args, kwargs) with the same values and without their graph. written: places that the call writes to;
        these get another copy, which may be written to."""
        tensors = []
        for i, (kept, device, requires_grad) in enumerate(self._kept):
            if isinstance(kept, Held):
                value = kept.tensor.to(device, non_blocking=True).detach().requires_grad_(requires_grad)
                value = value.clone() if i in written else value
            else:
                value = kept
            tensors.append(value)
        return _restore(self._tree, tensors, {})

    def _keep(self, value):
        if isinstance(value, Tensor):
            return self._keep_tensor(value)
        if isinstance(value, (dict, list, tuple)):
            if id(value) not in self._memo:
                self._memo[id(value)] = value  # stands for itself while its items are visited: it may contain itself
                self._memo[id(value)] = _rebuilt(value, self._keep)
            return self._memo[id(value)]
        if callable(value):
            self.callables.append(value)
        return value

    def _keep_tensor(self, tensor: Tensor):
        place = _Place(len(self._kept))
        constant = tensor.is_inference() or isinstance(tensor, torch.nn.Parameter)
        if constant or type(tensor) is not Tensor or tensor.layout is not torch.strided or _overlaps(tensor):
            self._kept.append((tensor, tensor.device, tensor.requires_grad))
            self._live.append(None)
            return place
        held, new = self._copies.of(tensor)
        self.size += held.nbytes if new else 0
        self._kept.append((held, tensor.device, tensor.requires_grad))
        self._live.append((tensor.detach(), tensor._version))
        return place


def _overlaps(tensor: Tensor) -> bool:
    """Expanded tensors: a copy would be larger, and nothing may write to them."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape))


def _restore(value, tensors: list[Tensor], memo: dict):
    if isinstance(value, _Place):
        return tensors[value.index]
    if isinstance(value, (dict, list, tuple)):
        if id(value) not in memo:
            memo[id(value)] = value
            memo[id(value)] = _rebuilt(value, lambda item: _restore(item, tensors, memo))
        return memo[id(value)]
    return value


def _rebuilt(value, change: Callable):
    """A container of the same type with changed items."""
    if isinstance(value, dict):
        fresh = copy.copy(value)
        for key, item in value.items():
            fresh[key] = change(item)
        return fresh
    if isinstance(value, list):
        fresh = copy.copy(value)
        fresh[:] = [change(item) for item in value]
        return fresh
    items = [change(item) for item in value]
    return (
        type(value)(*items)
        if hasattr(value, "_fields")
        else type(value)(items)
        if type(value) is not tuple
        else tuple(items)
    )
