"""What a guided run reports when it is over."""
from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class MemoryRecord:
    """How the guided steps made do with memory. rungs: one description per guided step; peak_bytes: the most that one
    of them took beyond what was allocated at its start, measured as peak_kind says, None without a guided step;
    repeats: steps that ran out of memory and were made again."""

    rungs: list[str] = field(default_factory=list)
    peak_bytes: int | None = None
    peak_kind: str = ""
    repeats: int = 0

    def add(self, rung: str, peak_bytes: int, peak_kind: str) -> None:
        """A guided step is done."""
        self.rungs.append(rung)
        if self.peak_bytes is None or peak_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_kind = peak_bytes, peak_kind


@dataclass
class RunRecord:
    """What a run did, for logs and reports. Loss terms are lists with one (B,) CPU tensor per guided step."""

    steps: int = 0
    evaluations: int = 0
    backwards: int = 0
    skipped_nudges: int = 0
    guided_sigmas: list[float] = field(default_factory=list)
    kept_sigmas: list[float] = field(default_factory=list)  # steps nudged in the last guided step's direction
    total: list[Tensor] = field(default_factory=list)
    mse: list[Tensor] = field(default_factory=list)
    alignment: list[Tensor] = field(default_factory=list)
    grad_rms: list[Tensor] = field(default_factory=list)
    memory: MemoryRecord = field(default_factory=MemoryRecord)
