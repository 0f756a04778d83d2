"""One call of a block that is checkpointed: what it leaves behind, and running it again when backward asks.

The block runs as it always does, on its own graph; only the tensors that autograd wants to save are given away
(`torch.autograd.graph.saved_tensors_hooks`). The first of them that backward needs makes the block run once more on
private copies of what it was called with, from the random state, the weights and the patches' state of then, up to the
last tensor that was saved. So nothing depends on the block's arguments or results, tensors that leave a block by
another way keep their gradient, and later writes to what the block was given or has returned do no harm.

The results of convolutions are kept: they are the cheapest bytes to spare work with (a 3x3 convolution's spare nine
times what a linear layer's do). What backward gets is checked: as many tensors as before, of the same shapes, the last
ones with the same sums, none overwritten after it was saved (those are copied).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, autocast, nn

from .arguments import Arguments
from .ledger import Held
from .restart import RandomState


class StepAgain(BaseException):
    """The evaluation can't be finished as it was begun; it has to be made again. Never leaves `Differentiator`.

    No Exception, so that a model's or patch's own error handling lets it pass.
    """


class _Enough(BaseException):
    """Ends a block's second run: all that backward needs is there."""


class _Saved:
    """What autograd holds instead of a tensor."""

    __slots__ = ("held", "__weakref__")

    def __init__(self):
        self.held: Held | None = None


class Call:
    """One call of a block, from its forward pass to the last tensor that backward takes.

    owner: the Checkpoints; keep_layers: whether results of convolutions are kept.
    """

    def __init__(self, owner, block, args: tuple, kwargs: dict, keep_layers: bool):
        self.owner, self.block = owner, block
        self.layers = LayerResults() if keep_layers else None
        self.arguments: Arguments | None = Arguments(args, kwargs, owner.copies)
        self.random = RandomState(owner.device)
        self.patches = owner.patches(self.arguments.callables)
        self.remembered = self.patches.read() if self.patches else None
        self.weights = None if owner.groups is None else owner.groups.current
        self.autocast = _autocast(owner.device)
        self.saved: list[weakref.ref[_Saved]] = []
        self.shapes: list[tuple] = []
        self.sums: dict[int, Tensor] = {}  # of some of the saved tensors
        self._last: tuple[int, Tensor, int] | None = None

    # ---- forward

    def run(self, args: tuple, kwargs: dict):
        hooks = torch.autograd.graph.saved_tensors_hooks(self._give_away, self.value)
        try:
            with hooks, self.owner.layers_of(self._layer):
                out = self.block.forward(*args, **kwargs)
            self._add_sums()
        finally:
            self._last = None
        self.block.written |= self.arguments.written()
        self.block.calls += 1
        self.block.inputs += self.arguments.size
        if self.layers is not None:
            self.block.inputs += self.layers.close(len(self.saved), self.owner.ledger)
        self.random.keep_if_used()
        return out

    def _layer(self, module: nn.Module, forward: Callable, x: Tensor, *args, **kwargs):
        out = forward(x, *args, **kwargs)
        if self.layers is not None:
            self._add_sums()  # what comes before it can't be told from what comes after it
            self.layers.add(module, out, len(self.saved))
        return out

    def _add_sums(self) -> None:
        if self._last is not None:
            index, tensor, version = self._last
            if tensor._version == version and index not in self.sums:
                self.sums[index] = _sums(tensor)

    def _give_away(self, tensor: Tensor) -> _Saved:
        saved = _Saved()
        if tensor.requires_grad and tensor.is_floating_point():  # no weight: those are the same in any case
            # Detached: a tensor's graph holds this call, and a call that fails must not hold the graph.
            self._last = (len(self.saved), tensor.detach(), tensor._version)
        self.saved.append(weakref.ref(saved))
        self.shapes.append((tensor.shape, tensor.dtype, tensor.device))
        return saved

    # ---- backward

    def value(self, saved: _Saved) -> Tensor:
        if saved.held is None:
            if self.arguments is None:
                raise RuntimeError(f"GradPaint: block {self.block.name} was differentiated twice")
            self._recompute()
        return saved.held.tensor

    def _recompute(self) -> None:
        for _ in range(2):
            found = self._run_again()
            overwritten = {i for i, (held, version) in found.items() if held.tensor._version != version}
            if not overwritten:
                break
            self.block.overwritten |= overwritten  # once more, with copies of these
        else:
            self.owner.give_up(self.block, "it overwrites its own results in changing ways")
        self.arguments = self.remembered = self.layers = None
        self._measure(found)
        for i, (held, _) in found.items():
            saved = self.saved[i]()
            if saved is not None:
                saved.held = held

    def _run_again(self) -> dict[int, tuple[Held, int]]:
        found: dict[int, tuple[Held, int]] = {}
        count = 0

        def keep(tensor: Tensor) -> None:
            nonlocal count
            index, count = count, count + 1
            if index >= len(self.shapes) or self.shapes[index] != (tensor.shape, tensor.dtype, tensor.device):
                raise _Enough
            if self.saved[index]() is not None:
                value = tensor.detach()
                value = value.clone() if index in self.block.overwritten else value
                found[index] = self.owner.ledger.hold(value), value._version
            if index in self.sums:
                self.owner.compare(self.block, self.sums[index], _sums(tensor))
            if count == len(self.shapes):
                matched.append(True)
                raise _Enough

        matched: list[bool] = []
        if self.owner.groups is not None and self.owner.groups.current is not self.weights:
            self.owner.groups.use(self.weights)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, _never)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            self.autocast(),
            self.random.again(),
            self._patches_of_then(),
            self.owner.inside(),
            self.owner.layers_of(self._layer_again()),
            hooks,
        ):
            args, kwargs = self.arguments.again(self.block.written)
            try:
                self.block.forward(*args, **kwargs)
            except _Enough:
                pass
        if not matched:
            self.owner.give_up(self.block, "it does not compute the same when it runs again")
        return found

    def _layer_again(self) -> Callable:
        results = None if self.layers is None else self.layers.again()

        def layer(module: nn.Module, forward: Callable, x: Tensor, *args, **kwargs):
            kept = None if results is None else results(module)
            return forward(x, *args, **kwargs) if kept is None else _Given.apply(x, kept)

        return layer

    @contextlib.contextmanager
    def _patches_of_then(self):
        if self.remembered is None:
            yield
            return
        now = self.patches.read()
        try:
            self.patches.write(self.remembered)
            yield
        finally:
            self.patches.write(now)

    def _measure(self, found: dict[int, tuple[Held, int]]) -> None:
        storages = {held.tensor.untyped_storage()._cdata: held.nbytes for held, _ in found.values()}
        size = sum(storages.values())
        self.block.saved += size
        self.block.largest = max(self.block.largest, size)
        self.owner.after_recompute()


class LayerResults:
    """What some layers have computed in one call of a block, each layer's results in the order of its calls."""

    def __init__(self):
        self._results: dict[int, list[tuple[Tensor | Held | None, int, int]]] = {}

    def add(self, module: nn.Module, out: Tensor, saved: int) -> None:
        """saved: how many tensors of the block autograd has saved by now."""
        self._results.setdefault(id(module), []).append((out.detach(), out._version, saved))

    def close(self, saved: int, ledger) -> int:
        """Drops those that have been written to and those after the last saved tensor; the bytes that are left."""
        size = 0
        for results in self._results.values():
            for i, (tensor, version, before) in enumerate(results):
                useful = before < saved and tensor._version == version
                results[i] = (ledger.hold(tensor), version, before) if useful else (None, version, before)
                size += results[i][0].nbytes if useful else 0
        return size

    def again(self) -> Callable[[nn.Module], Tensor | None]:
        """A function that tells a layer's results one after the other; None: has to be computed."""
        calls = {key: iter(results) for key, results in self._results.items()}

        def result(module: nn.Module) -> Tensor | None:
            held, version, _ = next(calls.get(id(module), iter(())), (None, 0, 0))
            return held.tensor if held is not None and held.tensor._version == version else None

        return result


class _Given(torch.autograd.Function):
    """A layer's result that is known. Stands in a graph that is never differentiated."""

    @staticmethod
    def forward(ctx, x: Tensor, result: Tensor) -> Tensor:
        return result.detach()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _never(grad)


def is_worth_keeping(layer: nn.Module) -> bool:
    """Whether it is a convolution whose graph saves nothing (see layers.py): its result can stand for it."""
    return "forward" in vars(layer) and hasattr(layer, "kernel_size")


def _autocast(device: torch.device) -> Callable:
    """Backward may run in a thread of its own, which knows nothing of the caller's autocast."""
    try:
        enabled = torch.is_autocast_enabled(device.type)
    except RuntimeError:  # devices that PyTorch knows no autocast for (MPS before 2.5)
        enabled = False
    if not enabled:
        return contextlib.nullcontext
    dtype = torch.get_autocast_dtype(device.type)
    return lambda: autocast(device.type, dtype=dtype)


def _sums(tensor: Tensor) -> Tensor:
    """(sum, sum of magnitudes), enough to notice that something else was computed."""
    with torch.no_grad():
        values = tensor.detach()
        dtype = torch.promote_types(values.dtype, torch.float32)
        return torch.stack([values.sum(dtype=dtype), torch.linalg.vector_norm(values, 1, dtype=dtype)])


def _never(_):
    raise RuntimeError("GradPaint: the second run of a block is not differentiated")
