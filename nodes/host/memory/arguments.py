"""A block's arguments, kept so that it can be called with them again, whatever happens to the originals."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .ledger import Held, Ledger


class _Slot:
    """Stands for a tensor in the copied arguments."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class _Kept(NamedTuple):
    """A tensor argument: a private copy, or the tensor itself if it can't change."""

    tensor: Held | Tensor
    device: torch.device
    requires_grad: bool


class Copies:
    """Private copies of tensors, one per evaluation for each tensor, however many blocks receive it."""

    def __init__(self, ledger: Ledger, store: Callable[[Tensor], Tensor] | None = None) -> None:
        """store: copies a tensor to another place (host memory); None: copies stay on their device."""
        self.ledger, self.store = ledger, store
        self._made: dict[int, tuple[weakref.ref[Tensor], int, weakref.ref[Held]]] = {}

    def of(self, tensor: Tensor) -> tuple[Held, bool]:
        """Return the tensor's copy, and whether it is a new one."""
        if id(tensor) in self._made:
            original, version, reference = self._made[id(tensor)]
            known = reference() if original() is tensor and version == tensor._version else None
            if known is not None:
                return known, False
        data = tensor.detach()
        value = data.clone() if self.store is None else self.store(data)
        held = self.ledger.hold(value, on_device=self.store is None)
        self._made[id(tensor)] = (weakref.ref(tensor), tensor._version, weakref.ref(held))
        return held, True


class Arguments:
    """The arguments of one call: tensors and containers are copied, everything else is kept as is.

    Attributes:
        size: bytes of the copies made for this call.
        callables: the functions among the arguments.
    """

    def __init__(self, args: tuple, kwargs: dict, copies: Copies) -> None:
        self.size = 0
        self.callables: list[Callable] = []
        self._kept: list[_Kept] = []
        self._live: list[tuple[Tensor, int] | None] = []  # each copied tensor with its version
        self._tree = self._keep((args, kwargs), copies, {})

    def written(self) -> set[int]:
        """Return the slots of the tensors written to since. Call it once, right after the block's forward."""
        slots = {i for i, live in enumerate(self._live) if live is not None and live[0]._version != live[1]}
        self._live = []
        return slots

    def again(self, written: set[int]) -> tuple[tuple, dict]:
        """Return fresh (args, kwargs) with the same values, without their graph.

        Args:
            written: slots the call writes to; their tensors get another copy, which may be overwritten.
        """
        tensors = []
        for i, kept in enumerate(self._kept):
            if isinstance(kept.tensor, Tensor):
                tensors.append(kept.tensor)
                continue
            value = kept.tensor.tensor.to(kept.device, non_blocking=True).detach().requires_grad_(kept.requires_grad)
            tensors.append(value.clone() if i in written else value)
        return _restored(self._tree, tensors, {})

    def _keep(self, value: Any, copies: Copies, memo: dict[int, Any]) -> Any:
        if isinstance(value, Tensor):
            return self._keep_tensor(value, copies)
        if isinstance(value, (dict, list, tuple)):
            if id(value) not in memo:
                memo[id(value)] = value  # a placeholder while its items are visited: it may contain itself
                memo[id(value)] = _rebuilt(value, lambda item: self._keep(item, copies, memo))
            return memo[id(value)]
        if callable(value):
            self.callables.append(value)
        return value

    def _keep_tensor(self, tensor: Tensor, copies: Copies) -> _Slot:
        slot = _Slot(len(self._kept))
        constant = tensor.is_inference() or isinstance(tensor, torch.nn.Parameter)
        if constant or type(tensor) is not Tensor or tensor.layout is not torch.strided or _overlaps(tensor):
            self._kept.append(_Kept(tensor, tensor.device, tensor.requires_grad))
            self._live.append(None)
            return slot
        held, new = copies.of(tensor)
        self.size += held.nbytes if new else 0
        self._kept.append(_Kept(held, tensor.device, tensor.requires_grad))
        self._live.append((tensor.detach(), tensor._version))
        return slot


def _overlaps(tensor: Tensor) -> bool:
    """Whether it is an expanded tensor: a copy would be larger, and nothing may write to it."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape))


def _restored(value: Any, tensors: list[Tensor], memo: dict[int, Any]) -> Any:
    """The arguments with a tensor in each slot."""
    if isinstance(value, _Slot):
        return tensors[value.index]
    if isinstance(value, (dict, list, tuple)):
        if id(value) not in memo:
            memo[id(value)] = value
            memo[id(value)] = _rebuilt(value, lambda item: _restored(item, tensors, memo))
        return memo[id(value)]
    return value


def _rebuilt(value: dict | list | tuple, change: Callable[[Any], Any]) -> Any:
    """A container of the same type with changed items."""
    if isinstance(value, dict):
        changed_dict = copy.copy(value)
        for key, item in value.items():
            changed_dict[key] = change(item)
        return changed_dict
    if isinstance(value, list):
        changed_list = copy.copy(value)
        changed_list[:] = [change(item) for item in value]
        return changed_list
    items = [change(item) for item in value]
    if hasattr(value, "_fields"):  # a namedtuple
        return type(value)(*items)
    return type(value)(items)
