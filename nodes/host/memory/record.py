"""A run's use of memory, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class MemoryRecord:
    """How the guided steps got by with the memory there was.

    Attributes:
        rungs: one description per guided step.
        peak_bytes: the most that any of them took beyond what was allocated when it started; None without a guided
            step.
        peak_kind: how peak_bytes was measured.
        repeats: how often a step ran out of memory and was repeated.
    """

    rungs: list[str] = field(default_factory=list)
    peak_bytes: int | None = None
    peak_kind: str = ""
    repeats: int = 0

    def add(self, rung: str, peak_bytes: int, peak_kind: str) -> None:
        """Record a finished guided step."""
        self.rungs.append(rung)
        if self.peak_bytes is None or peak_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_kind = peak_bytes, peak_kind
