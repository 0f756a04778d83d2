"""Keeps a block's inputs instead of everything in it, and runs the block again when backward asks for the rest.

Each block that is checkpointed runs as it always does, on its own graph; only the tensors that autograd wants to save
are given away (`torch.autograd.graph.saved_tensors_hooks`). The first of them that backward needs makes the block run
once more on private copies of what it was called with, from the random state and with the patches' state of then, up to
the last tensor that was saved. So nothing depends on the block's arguments or results, tensors that leave a block by
another way keep their gradient, and later writes to what the block was given or has returned do no harm.

What backward gets is checked: as many tensors as before, of the same shapes, the last one with the same sums, none
overwritten after it was saved (those are copied). A block that fails is not checkpointed again in this run.
"""
from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterable

import comfy.model_management
import torch
from torch import Tensor, nn

from .arguments import Arguments, Copies
from .blocks import find_blocks
from .ledger import Held, Ledger
from .patch_state import PatchState
from .restart import RandomState

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of the sums over a recomputed tensor; kernels on a GPU may differ in the last bits


class StepAgain(BaseException):
    """The evaluation can't be finished as it was begun; it has to be made again. Never leaves `Differentiator`.

    No Exception, so that a model's or patch's own error handling lets it pass.
    """


class _Enough(BaseException):
    """Ends a block's second run: all that backward needs is there."""


class Block:
    """One block of the network. plain: its saved tensors are kept; broken: they must be, in this run.

    Measured, in bytes, over one evaluation: saved, by all its calls; largest, by one call; inputs, of all its calls.
    """

    def __init__(self, name: str, module: nn.Module):
        self.name, self.module, self.forward = name, module, module.forward
        self.plain = self.broken = False
        self.written: set[int] = set()  # arguments that it writes to
        self.overwritten: set[int] = set()  # saved tensors that it writes to afterwards
        self.clear()

    def clear(self) -> None:
        self.calls = self.saved = self.largest = self.inputs = 0


class _Saved:
    """What autograd holds instead of a tensor."""

    __slots__ = ("call", "held", "__weakref__")

    def __init__(self, call: _Call):
        self.call: _Call | None = call
        self.held: Held | None = None


class _Call:
    """One call of a block, from its forward pass to the last tensor that backward takes."""

    def __init__(self, owner: Checkpoints, block: Block, args: tuple, kwargs: dict):
        self.owner, self.block = owner, block
        self.arguments: Arguments | None = Arguments(args, kwargs, owner.copies)
        self.random = RandomState(owner.device)
        self.patches = owner.patches(self.arguments.callables)
        self.remembered = self.patches.read() if self.patches else None
        self.weights = None if owner.groups is None else owner.groups.current
        self.autocast = _autocast(owner.device)
        self.saved: list[weakref.ref[_Saved]] = []
        self.shapes: list[tuple] = []
        self.sums: tuple[int, Tensor] | None = None  # (which saved tensor, its sums)
        self._last: tuple[int, Tensor, int] | None = None

    # ---- forward

    def run(self, args: tuple, kwargs: dict):
        hooks = torch.autograd.graph.saved_tensors_hooks(self._give_away, self.value)
        with hooks:
            out = self.block.forward(*args, **kwargs)
        self.block.written |= self.arguments.written()
        self.block.calls += 1
        self.block.inputs += self.arguments.size
        self.random.keep_if_used()
        if self._last is not None:
            index, tensor, version = self._last
            self.sums = (index, _sums(tensor)) if tensor._version == version else None
            self._last = None
        return out

    def _give_away(self, tensor: Tensor) -> _Saved:
        saved = _Saved(self)
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
        comfy.model_management.throw_exception_if_processing_interrupted()
        for _ in range(2):
            found = self._run_again()
            overwritten = {i for i, (held, version) in found.items() if held.tensor._version != version}
            if not overwritten:
                break
            self.block.overwritten |= overwritten  # once more, with copies of these
        else:
            self.owner.give_up(self.block, "it overwrites its own results in changing ways")
        self.arguments = self.remembered = None
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
            if self.sums is not None and self.sums[0] == index:
                self.owner.compare(self.block, self.sums[1], _sums(tensor))
            if count == len(self.shapes):
                matched.append(True)
                raise _Enough

        matched: list[bool] = []
        if self.owner.groups is not None and self.owner.groups.current is not self.weights:
            self.owner.groups.use(self.weights)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, _never)
        with torch.inference_mode(False), torch.enable_grad(), self.autocast(), self.random.again(), \
                self._patches_of_then(), self.owner.inside(), hooks:
            args, kwargs = self.arguments.again(self.block.written)
            try:
                self.block.forward(*args, **kwargs)
            except _Enough:
                pass
        if not matched:
            self.owner.give_up(self.block, "it does not compute the same when it runs again")
        return found

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


class Checkpoints:
    """The blocks of a run. `installed` for the run, `recording` for one evaluation and its backward pass."""

    def __init__(self, device: torch.device):
        self.device = device
        self.blocks: list[Block] = []
        self.network: frozenset[int] = frozenset()  # ids of the networks' modules
        self.groups = None
        self.ledger = Ledger()
        self.copies: Copies | None = None  # not None: an evaluation is being recorded
        self.after_recompute: Callable[[], None] = lambda: None
        self._depth = 0
        self._patches: dict[tuple, PatchState] = {}
        self._compared: list[tuple[Block, Tensor]] = []

    @contextlib.contextmanager
    def installed(self, models: Iterable[nn.Module], groups=None):
        """For the time of the block the networks' blocks look whether they are to be checkpointed.

        groups: hooks.WeightGroups of a model whose weights change within an evaluation.
        """
        models, self.groups = list(models), groups
        self.network = frozenset(id(module) for model in models for module in model.modules())
        patched: list[tuple[nn.Module, Callable | None]] = []
        try:
            for name, module in find_blocks(models):
                block = Block(name, module)
                self.blocks.append(block)
                patched.append((module, vars(module).get("forward")))
                module.forward = self._guided(block)
            yield
        finally:
            for module, forward in patched:
                if forward is None:
                    vars(module).pop("forward", None)
                else:
                    module.forward = forward
            self.blocks, self.groups = [], None

    @contextlib.contextmanager
    def recording(self, ledger: Ledger, store: Callable[[Tensor], Tensor] | None = None):
        """One evaluation in which all blocks but the plain ones are checkpointed. store: see `Copies`.

        Raises StepAgain at its end if a block did not come out the same: it will be plain next time.
        """
        self.ledger, self.copies = ledger, Copies(ledger, store)
        self._compared.clear()
        for block in self.blocks:
            block.clear()
        try:
            yield
            self._verify()
        finally:
            self.copies, self._depth = None, 0
            self._patches.clear()
            self._compared.clear()

    def _guided(self, block: Block) -> Callable:
        forward = block.forward

        def guided(*args, **kwargs):
            if self.copies is None or self._depth or not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            with self.inside():  # the blocks within it are part of it
                if block.plain or block.broken:
                    return forward(*args, **kwargs)
                return _Call(self, block, args, kwargs).run(args, kwargs)

        return guided

    @contextlib.contextmanager
    def inside(self):
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def patches(self, callables: list[Callable]) -> PatchState:
        key = tuple(map(id, callables))
        if key not in self._patches:
            self._patches[key] = PatchState(callables, self.network)
        return self._patches[key]

    def compare(self, block: Block, before: Tensor, now: Tensor) -> None:
        same = ((before - now).abs() <= TOLERANCE * before[1]) | ~(before + now).isfinite()
        self._compared.append((block, same.all()))

    def _verify(self) -> None:
        if not self._compared:
            return
        same = torch.stack([flag for _, flag in self._compared]).tolist()
        wrong = {block.name: block for (block, _), fine in zip(self._compared, same) if not fine}
        for block in wrong.values():
            self.give_up(block, "run again it computes other numbers (a patch that changes from call to call?)",
                         again=False)
        if wrong:
            raise StepAgain

    def give_up(self, block: Block, why: str, again: bool = True) -> None:
        """From now on the block is not checkpointed. again: the evaluation under way is lost."""
        block.broken = True
        log.warning("GradPaint: block %s can't be checkpointed: %s. Its activations are kept in memory.", block.name,
                    why)
        if again:
            raise StepAgain


def _autocast(device: torch.device) -> Callable:
    """Backward may run in a thread of its own, which knows nothing of the caller's autocast."""
    if not torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext
    dtype = torch.get_autocast_dtype(device.type)
    return lambda: torch.autocast(device.type, dtype=dtype)


def _sums(tensor: Tensor) -> Tensor:
    """(sum, sum of magnitudes), enough to notice that something else was computed."""
    with torch.no_grad():
        values = tensor.detach()
        return torch.stack([values.sum(dtype=torch.float32), torch.linalg.vector_norm(values, 1, dtype=torch.float32)])


def _never(_):
    raise RuntimeError("GradPaint: the second run of a block is not differentiated")
