"""The memory ladder: how a guided step makes do with the memory that there is.

plain backward -> some blocks recomputed -> all blocks recomputed -> their inputs in host memory as well -> no backward
pass, with the loss's gradient in x0_hat alone in place of the model's.

The rung is chosen before the first guided step. Where memory is plentiful that is plain backward. Else the first guided
step recomputes all blocks and measures what each of them saves; from then on as few are recomputed as fit. On an
out-of-memory error the step is made again one rung lower (see `Differentiator`).
"""

from __future__ import annotations

import contextlib
import enum
import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ....gradpaint.method.settings import AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY, MemorySettings
from . import device_memory
from .checkpoint import Block, Checkpoints
from .ledger import Held, Ledger
from .record import MemoryRecord

log = logging.getLogger(__name__)

MARGIN = 0.85  # of the free memory is planned with; the rest is for fragments and other programs
# A plain backward pass saves at most this many times the outputs of all linear and convolution layers, had they the
# latent's size. Counted on full-size networks: SDXL 0.2, SD1.5 0.4 to 0.8, Flux and SD3.5 0.7, Lumina 2 1.1, Wan 1.8,
# LTXV 4.0, Flux 2 5.1. The host's own estimate of a forward pass is off by more (factors of 11 to 178).
SAVED_PER_OUTPUT = 6.0


class Rung(enum.IntEnum):
    PLAIN = 0
    SOME = 1
    ALL = 2
    HOST = 3
    NONE = 4


FORCED = {FASTEST: Rung.PLAIN, LOW_MEMORY: Rung.ALL, LOWEST_MEMORY: Rung.HOST}
NAMES = {
    Rung.PLAIN: "plain backward",
    Rung.SOME: "some blocks recomputed",
    Rung.ALL: "all blocks recomputed",
    Rung.HOST: "all blocks recomputed, their inputs in host memory",
    Rung.NONE: "no backward pass",
}


class OutOfGuidanceMemory(RuntimeError):
    """No way to take the gradient fits into memory."""


class MemoryLadder:
    """One per run. `installed` for the run; at each guided step `choose`, then `evaluation` around each attempt at it,
    `out_of_memory` after one that failed."""

    def __init__(self, settings: MemorySettings, model, device: torch.device):
        self.settings, self.model, self.device = settings, model, device
        self.checkpoints = Checkpoints(device)
        self.rung: Rung | None = None
        self.record = MemoryRecord()
        self._floor = Rung.PLAIN  # a rung that ran out of memory is not tried again
        self._measure = False
        self._free = self._outputs = 0
        self._blocks: list[Block] = []  # those that save something, once that is known
        self._plain: set[Block] = set()

    def installed(self, modules: Iterable[nn.Module], groups=None):
        """For the time of the block, the blocks of these networks can be recomputed. groups: hooks.WeightGroups."""
        modules = list(modules)
        self._outputs = sum(map(layer_outputs, modules))
        return self.checkpoints.installed(modules, groups)

    @property
    def network(self) -> frozenset[int]:
        """The ids of the networks' modules."""
        return self.checkpoints.network

    @property
    def takes_gradient(self) -> bool:
        return self.rung is not Rung.NONE

    def choose(self, shapes: Iterable[torch.Size], conditionings: int) -> None:
        """Before a guided step. shapes: of the state, or of each tensor packed into it; conditionings: how many of
        them the model is evaluated for."""
        if self.rung is not None:
            return
        if not self.checkpoints.blocks:
            log.info("GradPaint: this model has no blocks that could be recomputed")
            self._go(Rung.PLAIN)
            return
        if self.settings.mode != AUTO:
            self._go(FORCED[self.settings.mode])
            return
        self._free = device_memory.free_memory(self.model, self.device)
        dtype = _dtype(self.model)
        needed = conditionings * sum(expected_bytes(self._outputs, shape, dtype) for shape in shapes)
        log.info("GradPaint: %s free, a plain backward pass may keep up to %s", _size(self._free), _size(needed))
        if needed <= MARGIN * self._free:
            self._go(Rung.PLAIN)
        else:
            self._measure = True
            self._go(Rung.ALL)

    @contextlib.contextmanager
    def evaluation(self, count: bool):
        """One attempt at a guided step: forward and backward. count: whether what is saved outside of blocks may be
        counted (by hooks, which would be in the way of others)."""
        ledger, meter = Ledger(), device_memory.PeakMeter(self.device)
        if self._measure:
            self._free = device_memory.free_memory(self.model, self.device)
        outside = _Counted(ledger)
        counts = count and (self._measure or self.device.type != "cuda")
        self.checkpoints.after_recompute = meter.sample
        with outside.hooks() if counts else contextlib.nullcontext():
            if self.rung is Rung.PLAIN:
                yield meter
            else:
                with self.checkpoints.recording(ledger, device_memory.to_host if self.rung is Rung.HOST else None):
                    yield meter
        peak = meter.result() or (
            ledger.peak,
            "saved for backward, counted" if counts else "saved for backward by recomputed blocks, counted",
        )
        self.record.add(self.describe(), *peak)
        if self._measure:
            self._measure = False
            self._settle(outside.size, max(0, peak[0] - ledger.peak))

    def out_of_memory(self) -> None:
        """After an attempt that ran out of memory. Goes one rung down or raises OutOfGuidanceMemory."""
        device_memory.give_back()
        before = self.describe()
        self._floor = Rung(self.rung + 1)
        if self.settings.mode == FASTEST or not self.checkpoints.blocks:
            self._floor = Rung.NONE
        if self._floor is Rung.SOME:  # how much each block saves is not known yet: the repeated step measures it
            self._measure = True
            self._set(Rung.ALL)
        else:
            self._measure = False
            self._set(self._floor)
        if self.rung is Rung.NONE and not self.settings.allow_without_gradient:
            raise OutOfGuidanceMemory(
                f"GradPaint: out of memory in a guided step ({before}), and no way of saving memory is left. Take a "
                "smaller image or batch, a smaller or more strongly quantised model, close other programs that use the "
                "device, set `gradient` to x0, or allow that where nothing else fits (GradPaint Memory)."
            )
        self.record.repeats += 1
        log.warning(
            "GradPaint: out of memory in a guided step (%s); the step is made again: %s", before, self.describe()
        )
        if self.rung is Rung.NONE:
            log.warning(
                "GradPaint: from here on guidance does WITHOUT the model's gradient, as with `gradient` x0: "
                "it is weaker. The known part is kept in place as before"
            )

    def without_backward(self) -> None:
        """A guided step is made without a backward pass."""
        self.record.rungs.append(self.describe())

    def describe(self) -> str:
        if self.rung is not Rung.SOME:
            return NAMES[self.rung]
        return f"{len(self._blocks) - len(self._plain)} of {len(self._blocks)} blocks recomputed"

    def _go(self, rung: Rung, plain: Iterable[Block] = ()) -> None:
        self._set(rung, plain)
        log.info("GradPaint: memory: %s", self.describe())

    def _set(self, rung: Rung, plain: Iterable[Block] = ()) -> None:
        self.rung, self._plain = rung, set(plain)
        for block in self.checkpoints.blocks:
            block.plain = block in self._plain

    def _settle(self, rest: int, transient: int) -> None:
        """The best rung that fits, now that what each block saves is known. transient: bytes beyond what was saved."""
        self._blocks = blocks = [block for block in self.checkpoints.blocks if block.saved and not block.broken]
        plain = plan(blocks, rest, transient, MARGIN * self._free)
        if plain is None:
            self._go(Rung.HOST)
        elif len(plain) == len(blocks) and self._floor is Rung.PLAIN:
            self._go(Rung.PLAIN)
        elif plain:
            # If all of them should fit but did not, the numbers are not to be trusted.
            self._go(Rung.SOME, plain if len(plain) < len(blocks) else plain[: len(blocks) // 2])


def plan(blocks: list[Block], rest: int, transient: int, budget: float) -> list[Block] | None:
    """The blocks that need not be recomputed, as many as fit into budget bytes; None if not even without any.

    rest: bytes saved outside of all blocks; transient: bytes that come and go. The blocks' sizes have been measured.
    Kept are the inputs of recomputed blocks, all of the others, and what one block saves while it is recomputed. At
    least as much as the largest block saves is left for what comes and goes in a backward pass.
    """
    largest = max((block.largest for block in blocks), default=0)
    needed = rest + max(transient, largest) + largest + sum(block.inputs for block in blocks)
    if needed > budget:
        return None
    plain = []
    # The smallest first: that leaves the fewest to recompute.
    for block in sorted(blocks, key=lambda block: block.saved - block.inputs):
        needed += block.saved - block.inputs
        if needed > budget:
            break
        plain.append(block)
    return plain


def layer_outputs(network: nn.Module) -> int:
    """Numbers that all linear and convolution layers together put out for each token or pixel."""
    layers = (module for module in network.modules() if next(module.children(), None) is None)
    return sum(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0) for layer in layers)


def expected_bytes(outputs: int, shape, dtype: torch.dtype) -> float:
    """At most what a plain backward pass saves. outputs: see layer_outputs; shape: the state's; dtype: the model's."""
    area = shape[0] * torch.Size(shape[2:]).numel()
    return SAVED_PER_OUTPUT * outputs * area * max(dtype.itemsize, 2)


def _dtype(model) -> torch.dtype:
    """What the host's model computes in; hosts of different ages say it in different ways."""
    return getattr(model, "get_dtype_inference", model.get_dtype)()


class _Counted:
    """Saved-tensor hooks that keep the tensors as autograd would and count them. size: bytes of new storages."""

    def __init__(self, ledger: Ledger):
        self.ledger, self.size = ledger, 0

    def hooks(self):
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, tensor: Tensor):
        if type(tensor) is not Tensor or tensor.is_inference():
            return tensor, None
        value, before = tensor.detach(), self.ledger.live
        held = self.ledger.hold(value)
        self.size += self.ledger.live - before
        return held, value._version

    @staticmethod
    def _unpack(packed) -> Tensor:
        held, version = packed
        if not isinstance(held, Held):
            return held
        if held.tensor._version != version:  # with hooks PyTorch does not look itself
            raise RuntimeError("a tensor needed for the gradient has been modified by an inplace operation")
        return held.tensor


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
