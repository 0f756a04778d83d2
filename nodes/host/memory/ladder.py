"""The memory ladder: how guided steps get by with the memory there is.

From the top: plain backward -> some blocks recomputed -> all blocks recomputed -> their inputs in host memory as well
-> no backward pass, with the loss's gradient with respect to x0_hat alone in place of the model's.

The rung is chosen before the first guided step. Where memory is plentiful it is plain backward. Otherwise the first
guided step recomputes all blocks and measures what each of them saves; from then on only as many are recomputed as
necessary. After an out-of-memory error the step is repeated one rung lower (see `Differentiator`).
"""

from __future__ import annotations

import contextlib
import enum
import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import nn

from ....gradpaint.method.settings import AUTO, FASTEST, LOW_MEMORY, LOWEST_MEMORY, MemorySettings
from . import device_memory
from .checkpoint import Block, Checkpoints
from .ledger import Ledger, SavedTensorCounter
from .record import MemoryRecord
from .sizes import blocks_to_keep, expected_bytes, format_bytes, layer_outputs

if TYPE_CHECKING:
    from comfy.model_base import BaseModel

    from ..autograd.layers import Groups

log = logging.getLogger(__name__)

MARGIN = 0.85  # the share of the free memory that is used; the rest is for fragmentation and other programs


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
    """There is too little memory to take the gradient in any allowed way."""


class MemoryLadder:
    """Made once per run and `installed` for it.

    At each guided step call `choose`, enter `evaluation` around each attempt, and call `out_of_memory` after an attempt
    that failed.
    """

    def __init__(self, settings: MemorySettings, model: BaseModel, device: torch.device) -> None:
        self.settings, self.model, self.device = settings, model, device
        self.checkpoints = Checkpoints(device)
        self.record = MemoryRecord()
        self._rung: Rung | None = None  # None: not chosen yet
        self._highest = Rung.PLAIN  # rungs above it ran out of memory and are not tried again
        self._measure = False
        self._free = self._outputs = 0
        self._blocks: list[Block] = []  # those that save something, once measured
        self._plain: set[Block] = set()

    def installed(self, modules: Iterable[nn.Module], groups: Groups | None = None) -> AbstractContextManager:
        """Let the blocks of these networks be recomputed while the context is active; see Checkpoints.installed."""
        modules = list(modules)
        self._outputs = sum(map(layer_outputs, modules))
        return self.checkpoints.installed(modules, groups)

    @property
    def network(self) -> frozenset[int]:
        """The ids of the networks' modules."""
        return self.checkpoints.network

    @property
    def takes_gradient(self) -> bool:
        """Whether guided steps still run a backward pass."""
        return self._rung is not Rung.NONE

    def choose(self, shapes: Iterable[torch.Size], conditionings: int) -> None:
        """Choose the rung, before a guided step; does nothing if it is chosen already.

        Args:
            shapes: of the state, or of each component of a nested latent.
            conditionings: how many the model is evaluated for.
        """
        if self._rung is not None:
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
        log.info(
            "GradPaint: %s free; a plain backward pass may keep up to %s",
            format_bytes(self._free),
            format_bytes(needed),
        )
        if needed <= MARGIN * self._free:
            self._go(Rung.PLAIN)
        else:
            self._measure = True
            self._go(Rung.ALL)

    @contextlib.contextmanager
    def evaluation(self, count: bool) -> Iterator[device_memory.PeakMeter]:
        """Enter around one attempt at a guided step, forward and backward; yields its PeakMeter.

        Args:
            count: whether what is saved outside of blocks may be counted, by hooks that could get in the way of others.
        """
        ledger, meter = Ledger(), device_memory.PeakMeter(self.device)
        if self._measure:
            self._free = device_memory.free_memory(self.model, self.device)
        outside = SavedTensorCounter(ledger)
        counts = count and (self._measure or self.device.type != "cuda")
        self.checkpoints.after_recompute = meter.sample
        with outside.hooks() if counts else contextlib.nullcontext():
            if self._rung is Rung.PLAIN:
                yield meter
            else:
                with self.checkpoints.recording(ledger, device_memory.to_host if self._rung is Rung.HOST else None):
                    yield meter
        peak, kind = meter.result() or (
            ledger.peak,
            "saved for backward, counted" if counts else "saved for backward by recomputed blocks, counted",
        )
        self.record.add(self.describe(), peak, kind)
        if self._measure:
            self._measure = False
            self._settle(outside.size, max(0, peak - ledger.peak))

    def out_of_memory(self) -> None:
        """Go one rung down, after an attempt that ran out of memory.

        Raises:
            OutOfGuidanceMemory: if no rung is left, or only the one without a gradient, which must be allowed.
        """
        device_memory.release_unused()
        before = self.describe()
        self._go_down()
        if not self.takes_gradient and not self.settings.allow_without_gradient:
            raise OutOfGuidanceMemory(
                f"GradPaint: out of memory in a guided step ({before}), with no way left to save memory. Use a smaller "
                "image or batch or a smaller or more strongly quantized model, close other programs that use the "
                "device, set `gradient` to x0, or allow guidance without the model's gradient as a last resort "
                "(GradPaint Memory)."
            )
        self.record.repeats += 1
        log.warning("GradPaint: out of memory in a guided step (%s); repeating it with: %s", before, self.describe())
        if not self.takes_gradient:
            log.warning(
                "GradPaint: from here on guidance works WITHOUT the model's gradient, as with `gradient` set to x0: "
                "it is weaker. The known region is still kept"
            )

    def without_backward(self) -> None:
        """Record a guided step that ran without a backward pass."""
        self.record.rungs.append(self.describe())

    def describe(self) -> str:
        """Return the current rung in words."""
        if self._rung is None:
            return "not chosen yet"
        if self._rung is not Rung.SOME:
            return NAMES[self._rung]
        return f"{len(self._blocks) - len(self._plain)} of {len(self._blocks)} blocks recomputed"

    def _go_down(self) -> None:
        self._highest = Rung((self._rung or Rung.PLAIN) + 1)
        if self.settings.mode == FASTEST or not self.checkpoints.blocks:
            self._highest = Rung.NONE
        self._measure = self._highest is Rung.SOME  # what each block saves is not known yet: the repeated step measures
        self._set(Rung.ALL if self._measure else self._highest)

    def _go(self, rung: Rung, plain: Iterable[Block] = ()) -> None:
        self._set(rung, plain)
        log.info("GradPaint: memory: %s", self.describe())

    def _set(self, rung: Rung, plain: Iterable[Block] = ()) -> None:
        self._rung, self._plain = rung, set(plain)
        for block in self.checkpoints.blocks:
            block.plain = block in self._plain

    def _settle(self, rest: int, transient: int) -> None:
        """Go to the best rung that fits, after the measuring step.

        Args:
            rest: bytes saved outside of blocks.
            transient: bytes in use beyond what was saved.
        """
        self._blocks = blocks = [block for block in self.checkpoints.blocks if block.saved and not block.broken]
        kept = blocks_to_keep(blocks, rest, transient, MARGIN * self._free)
        if kept is None:
            self._go(Rung.HOST)
        elif len(kept) == len(blocks) and self._highest is Rung.PLAIN:
            self._go(Rung.PLAIN)
        elif kept:
            # If all of them should have fit but did not, the numbers can't be trusted.
            self._go(Rung.SOME, kept if len(kept) < len(blocks) else kept[: len(blocks) // 2])


def _dtype(model: BaseModel) -> torch.dtype:
    """The type the host's model computes in, which older and newer hosts report in different ways."""
    return getattr(model, "get_dtype_inference", model.get_dtype)()
