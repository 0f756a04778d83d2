"""Block checkpointing: which blocks of a network are recomputed in an evaluation's backward pass (see recompute.py)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..autograd.replaced_attributes import ReplacedAttributes
from .arguments import Copies
from .blocks import find_blocks
from .layer_results import is_worth_keeping
from .ledger import Held, Ledger
from .patch_state import PatchState
from .recompute import Call, StepAgain

if TYPE_CHECKING:
    from ..autograd.layers import Groups

__all__ = ["Block", "Checkpoints", "StepAgain"]

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of the sums over a recomputed tensor; kernels on a GPU may differ in the last bits


class Block:
    """One block of the network, and what was measured of it over one evaluation.

    Attributes:
        plain: its saved tensors are kept, by the memory ladder's choice.
        broken: they have to be kept for the rest of the run, as it can't be recomputed.
        written: slots of the arguments that it writes to.
        overwritten: saved tensors that it writes to afterwards.
        calls: how often it was called.
        saved, largest: bytes saved by all of its calls, and by the largest of them.
        inputs: bytes of all of its calls' inputs.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.forward = name, module.forward
        self.plain = self.broken = False
        self.written: set[int] = set()
        self.overwritten: set[int] = set()
        self.clear()

    def clear(self) -> None:
        """Forget what was measured."""
        self.calls = self.saved = self.largest = self.inputs = 0

    def measure(self, tensors: list[Held]) -> None:
        """Add what one call saved."""
        storages = {held.tensor.untyped_storage()._cdata: held.nbytes for held in tensors}
        size = sum(storages.values())
        self.saved += size
        self.largest = max(self.largest, size)


class Checkpoints:
    """A run's blocks: `installed` for the run, `recording` for one evaluation and its backward pass.

    Attributes:
        network: ids of the modules of all networks.
        after_recompute: called each time a block has been recomputed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.blocks: list[Block] = []
        self.network: frozenset[int] = frozenset()
        self.groups: Groups | None = None
        self.ledger = Ledger()
        self.after_recompute: Callable[[], None] = lambda: None
        self._copies: Copies | None = None  # None: no evaluation is being recorded
        self._depth = 0
        self._layer: Callable | None = None
        self._patches: dict[tuple, PatchState] = {}
        self._compared: list[tuple[Block, Tensor]] = []

    @contextlib.contextmanager
    def installed(self, models: Iterable[nn.Module], groups: Groups | None = None) -> Iterator[None]:
        """Let the networks' blocks be checkpointed while this context is active.

        Args:
            models: the networks.
            groups: for a model whose weights change within an evaluation.
        """
        models, self.groups = list(models), groups
        self.network = frozenset(id(module) for model in models for module in model.modules())
        try:
            with ReplacedAttributes() as replaced:
                blocks = find_blocks(models)
                layers = {id(layer): layer for _, block in blocks for layer in block.modules()}
                for layer in layers.values():
                    if is_worth_keeping(layer):
                        replaced.replace(layer, "forward", self._guided_layer(layer))
                for name, module in blocks:
                    self.blocks.append(Block(name, module))
                    replaced.replace(module, "forward", self._guided(self.blocks[-1]))
                yield
        finally:
            self.blocks, self.groups = [], None

    @contextlib.contextmanager
    def recording(self, ledger: Ledger, store: Callable[[Tensor], Tensor] | None = None) -> Iterator[None]:
        """Record one evaluation in which every block that is neither plain nor broken is checkpointed.

        Args:
            ledger: counts what is kept.
            store: see `Copies`.

        Raises:
            StepAgain: at the end, if a block did not come out the same; it will not be recomputed next time.
        """
        self.ledger, self._copies = ledger, Copies(ledger, store)
        self._compared.clear()
        for block in self.blocks:
            block.clear()
        try:
            yield
            self._verify()
        finally:
            self._copies, self._depth = None, 0
            self._patches.clear()
            self._compared.clear()

    def _guided(self, block: Block) -> Callable:
        forward = block.forward

        def guided(*args: Any, **kwargs: Any) -> Any:
            copies = self._copies
            if copies is None or self._depth or not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            with self.inside():  # the blocks within it belong to it
                if block.plain or block.broken:
                    return forward(*args, **kwargs)
                return Call(self, block, args, kwargs, copies).run(args, kwargs)

        return guided

    def _guided_layer(self, layer: nn.Module) -> Callable:
        forward = layer.forward

        def guided(*args: Any, **kwargs: Any) -> Any:
            if self._layer is None or not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return self._layer(layer, forward, *args, **kwargs)

        return guided

    @contextlib.contextmanager
    def layers_of(self, layer: Callable) -> Iterator[None]:
        """While active, layer(module, forward, *args) replaces the forward of the layers worth keeping."""
        self._layer = layer
        try:
            yield
        finally:
            self._layer = None

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """While a block runs: the blocks inside it are not checkpointed themselves."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def patches(self, callables: list[Callable]) -> PatchState:
        """Return the state of these patches, looked up once per evaluation."""
        key = tuple(map(id, callables))  # unique: the calls of this evaluation keep them alive
        if key not in self._patches:
            self._patches[key] = PatchState(callables, self.network)
        return self._patches[key]

    def compare(self, block: Block, before: Tensor, now: Tensor) -> None:
        """Note whether the sums over a recomputed tensor are the same; checked at the end of the evaluation."""
        same = ((before - now).abs() <= TOLERANCE * before[1]) | ~(before + now).isfinite()
        self._compared.append((block, same.all()))

    def _verify(self) -> None:
        if not self._compared:
            return
        same = torch.stack([flag for _, flag in self._compared]).tolist()
        wrong = {block.name: block for (block, _), fine in zip(self._compared, same) if not fine}
        for block in wrong.values():
            self._mark_broken(block, "it computes other numbers when it runs again (does a patch vary between calls?)")
        if wrong:
            raise StepAgain

    def give_up(self, block: Block, why: str) -> None:
        """Stop checkpointing the block; the evaluation under way is lost.

        Raises:
            StepAgain: always.
        """
        self._mark_broken(block, why)
        raise StepAgain

    def _mark_broken(self, block: Block, why: str) -> None:
        block.broken = True
        log.warning("GradPaint: block %s can't be checkpointed: %s. Its activations stay in memory.", block.name, why)
