"""One call of a checkpointed block: what it keeps, and how it runs again when backward needs its tensors.

The block runs as always, on its own graph; only the tensors that autograd wants to save are left out
(`torch.autograd.graph.saved_tensors_hooks`). The first of them that backward needs makes the block run once more, on
private copies of its arguments, from the random state, the weights and the patches' state it had, up to the last tensor
that was saved. So nothing depends on the block's arguments or results being unchanged: tensors that leave a block by
another route keep their gradient, and later writes to what the block received or returned do no harm.

Backward's tensors are checked: the same number as before, with the same shapes, the last ones with the same sums, and
none overwritten after it was saved (those are copied).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .arguments import Arguments, Copies
from .layer_results import KnownResult, LayerResults, never_differentiated
from .ledger import Held
from .restart import StartOfCall

if TYPE_CHECKING:
    from .checkpoint import Block, Checkpoints


class StepAgain(BaseException):
    """The evaluation can't be finished as begun and has to be repeated. Never leaves `Differentiator`.

    It is no Exception, so that error handling inside a model or patch does not catch it.
    """


class _Done(BaseException):
    """Ends a block's second run: everything backward needs is there."""


class _Saved:
    """What autograd holds in place of a tensor."""

    __slots__ = ("held", "__weakref__")

    def __init__(self) -> None:
        self.held: Held | None = None


class Call:
    """One call of a block, from its forward pass to the last tensor that backward takes."""

    def __init__(self, owner: Checkpoints, block: Block, args: tuple, kwargs: dict, copies: Copies) -> None:
        self._owner, self._block = owner, block
        # Copies elsewhere mean that memory is scarcer still: then nothing is kept on the device.
        self._layers = LayerResults() if copies.store is None else None
        arguments = Arguments(args, kwargs, copies)
        patches = owner.patches(arguments.callables)
        self._start: StartOfCall | None = StartOfCall(arguments, patches, owner.groups, owner.device)
        self._saved: list[weakref.ref[_Saved]] = []
        self._shapes: list[tuple] = []
        self._sums: dict[int, Tensor] = {}  # of some of the saved tensors, by index
        self._last: tuple[int, Tensor, int] | None = None  # the saved tensor to take the sums of next

    # ---- forward

    def run(self, args: tuple, kwargs: dict) -> Any:
        """Run the block's forward and return its result."""
        start, block = self._require_start(), self._block
        try:
            with saved_tensors_hooks(self._leave_out, self._value), self._owner.layers_of(self._layer):
                out = block.forward(*args, **kwargs)
            self._add_sums()
        finally:
            self._last = None
        block.written |= start.arguments.written()
        block.calls += 1
        block.inputs += start.arguments.size
        if self._layers is not None:
            block.inputs += self._layers.close(len(self._saved), self._owner.ledger)
        start.random.forget_if_unused()
        return out

    def _require_start(self) -> StartOfCall:
        if self._start is None:
            raise RuntimeError(f"GradPaint: block {self._block.name} was differentiated twice")
        return self._start

    def _layer(self, module: nn.Module, forward: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = forward(x, *args, **kwargs)
        if self._layers is not None:
            self._add_sums()  # a known result would hide differences that come before it
            self._layers.add(module, out, len(self._saved))
        return out

    def _add_sums(self) -> None:
        if self._last is not None:
            index, tensor, version = self._last
            if tensor._version == version and index not in self._sums:
                self._sums[index] = _sums(tensor)

    def _leave_out(self, tensor: Tensor) -> _Saved:
        saved = _Saved()
        if tensor.requires_grad and tensor.is_floating_point():  # no weight: those are the same in any case
            # Detached: a tensor's graph holds this call, and a call that fails must not hold the graph.
            self._last = (len(self._saved), tensor.detach(), tensor._version)
        self._saved.append(weakref.ref(saved))
        self._shapes.append((tensor.shape, tensor.dtype, tensor.device))
        return saved

    # ---- backward

    def _value(self, saved: _Saved) -> Tensor:
        if saved.held is None:
            self._recompute()
        assert saved.held is not None  # autograd holds `saved`, so the second run has filled it
        return saved.held.tensor

    def _recompute(self) -> None:
        for _ in range(2):
            tensors = self._run_again(self._require_start())
            overwritten = {i for i, (held, version) in tensors.items() if held.tensor._version != version}
            if not overwritten:
                break
            self._block.overwritten |= overwritten  # once more, with copies of these
        else:
            self._owner.give_up(self._block, "it overwrites its own results in varying ways")
        self._start = self._layers = None
        self._block.measure([held for held, _ in tensors.values()])
        self._owner.after_recompute()
        for i, (held, _) in tensors.items():
            saved = self._saved[i]()
            if saved is not None:
                saved.held = held

    def _run_again(self, start: StartOfCall) -> dict[int, tuple[Held, int]]:
        """The tensors saved in a second run that are still needed, with their versions, by index."""
        tensors: dict[int, tuple[Held, int]] = {}
        count = 0

        def keep(tensor: Tensor) -> None:
            nonlocal count
            index, count = count, count + 1
            if index >= len(self._shapes) or self._shapes[index] != (tensor.shape, tensor.dtype, tensor.device):
                raise _Done
            if self._saved[index]() is not None:
                value = tensor.detach()
                value = value.clone() if index in self._block.overwritten else value
                tensors[index] = self._owner.ledger.hold(value), value._version
            if index in self._sums:
                self._owner.compare(self._block, self._sums[index], _sums(tensor))
            if count == len(self._shapes):
                complete.append(True)
                raise _Done

        complete: list[bool] = []
        with (
            start.again(self._block.written) as (args, kwargs),
            self._owner.inside(),
            self._owner.layers_of(self._layer_again()),
            saved_tensors_hooks(keep, never_differentiated),
        ):
            try:
                self._block.forward(*args, **kwargs)
            except _Done:
                pass
        if not complete:
            self._owner.give_up(self._block, "it does not compute the same thing when it runs again")
        return tensors

    def _layer_again(self) -> Callable[..., Tensor]:
        next_result = None if self._layers is None else self._layers.again()

        def layer(module: nn.Module, forward: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            result = None if next_result is None else next_result(module)
            return forward(x, *args, **kwargs) if result is None else KnownResult.apply(x, result)

        return layer


def _sums(tensor: Tensor) -> Tensor:
    """(sum, sum of magnitudes), which reveal that something else was computed."""
    with torch.no_grad():
        values = tensor.detach()
        dtype = torch.promote_types(values.dtype, torch.float32)
        return torch.stack([values.sum(dtype=dtype), torch.linalg.vector_norm(values, 1, dtype=dtype)])
