"""Block checkpointing: which blocks of a network are recomputed in an evaluation's backward pass (see recompute.py)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .arguments import Copies
from .blocks import find_blocks
from .ledger import Ledger
from .patch_state import PatchState
from .recompute import Call, StepAgain, is_worth_keeping

__all__ = ["Block", "Checkpoints", "StepAgain"]

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of the sums over a recomputed tensor; kernels on a GPU may differ in the last bits


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
        self._layer: Callable | None = None
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

        def patch(module: nn.Module, forward: Callable) -> None:
            patched.append((module, vars(module).get("forward")))
            module.forward = forward

        try:
            blocks = find_blocks(models)
            layers = {id(layer): layer for _, module in blocks for layer in module.modules() if is_worth_keeping(layer)}
            for layer in layers.values():
                patch(layer, self._guided_layer(layer))
            for name, module in blocks:
                self.blocks.append(Block(name, module))
                patch(module, self._guided(self.blocks[-1]))
            yield
        finally:
            for module, forward in reversed(patched):
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
                return Call(self, block, args, kwargs, self.copies.store is None).run(args, kwargs)

        return guided

    def _guided_layer(self, layer: nn.Module) -> Callable:
        forward = layer.forward

        def guided(*args, **kwargs):
            if self._layer is None or not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return self._layer(layer, forward, *args, **kwargs)

        return guided

    @contextlib.contextmanager
    def layers_of(self, layer: Callable):
        """While inside, layer(module, forward, *args) stands for the forward of the layers worth keeping."""
        self._layer = layer
        try:
            yield
        finally:
            self._layer = None

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
            self.give_up(
                block, "run again it computes other numbers (a patch that changes from call to call?)", again=False
            )
        if wrong:
            raise StepAgain

    def give_up(self, block: Block, why: str, again: bool = True) -> None:
        """From now on the block is not checkpointed. again: the evaluation under way is lost."""
        block.broken = True
        log.warning(
            "GradPaint: block %s can't be checkpointed: %s. Its activations are kept in memory.", block.name, why
        )
        if again:
            raise StepAgain
